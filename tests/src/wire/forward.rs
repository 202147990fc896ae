//! The process that holds both ends of the cable. Each line on its input is a new set of faults,
//! as JSON; it answers with what it has counted so far.

use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;

use super::queue::Queue;
use super::socket::PacketSocket;
use super::{Direction, Faults};

/// More than any frame, a large one of a misconfigured interface included.
const LONGEST_FRAME: usize = 128 << 10;
/// Frames taken from one end before the other has its turn.
const TURN: usize = 64;

/// Forwards between two interfaces until the input ends.
pub fn run(first: &str, second: &str) -> Result<()> {
    let open = |name: &str| PacketSocket::open(name).with_context(|| format!("interface {name}"));
    let ends = [open(first)?, open(second)?];
    let (reader, writer) = pipe()?;
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if tx.send(line).is_err() || nix::unistd::write(&writer, b"x").is_err() {
                break;
            }
        }
        // Dropping both tells the other thread.
    });
    println!("ready");
    let mut queue = Queue::new(Faults::default());
    let mut buffer = vec![0; LONGEST_FRAME];
    loop {
        wait(&ends, &reader, queue.next_due())?;
        for (end, direction) in ends.iter().zip([Direction::There, Direction::Back]) {
            for _ in 0..TURN {
                let Some(frame) = end.receive(&mut buffer)? else {
                    break;
                };
                queue.enter(direction, frame, Instant::now());
            }
        }
        while let Some((direction, frame)) = queue.leave(Instant::now()) {
            match direction {
                Direction::There => ends[1].send(&frame),
                Direction::Back => ends[0].send(&frame),
            }
        }
        if !obey(&mut queue, &rx, &reader)? {
            return Ok(());
        }
    }
}

/// Until a frame arrives, one is due, or somebody commands.
fn wait(ends: &[PacketSocket; 2], commands: impl AsFd, due: Option<Instant>) -> Result<()> {
    let timeout = match due.map(|due| due.saturating_duration_since(Instant::now())) {
        None => PollTimeout::NONE,
        // Rounded up, not to spin during the last millisecond.
        Some(wait) if !wait.is_zero() => {
            PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        }
        Some(_) => PollTimeout::ZERO,
    };
    let mut descriptors = [
        PollFd::new(ends[0].as_fd(), PollFlags::POLLIN),
        PollFd::new(ends[1].as_fd(), PollFlags::POLLIN),
        PollFd::new(commands.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// False once nobody commands any more.
fn obey(queue: &mut Queue, commands: &Receiver<String>, bell: impl AsFd) -> Result<bool> {
    loop {
        match commands.try_recv() {
            Ok(line) => {
                nix::unistd::read(&bell, &mut [0])?;
                queue.set_faults(serde_json::from_str(&line).context("faults")?);
                println!("{}", serde_json::to_string(&queue.counts())?);
                io::stdout().flush()?;
            }
            Err(TryRecvError::Empty) => return Ok(true),
            Err(TryRecvError::Disconnected) => return Ok(false),
        }
    }
}
