//! The server half of the tests' application: a thread per connection, blocking.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

use super::{
    BANNER_PORT, DEAF_PORT, ECHO_PORT, ENDLESS_PORT, FNV_OFFSET, Pattern, REQUEST_PORT, SINK_PORT,
    SOURCE_PORT, UDP_PORT, checksum, stubborn,
};

/// Serves every port until killed.
pub fn run(name: &str, bind: IpAddr) -> Result<()> {
    let listen = |port, handle: fn(&str, TcpStream) -> Result<()>| -> Result<()> {
        let listener = TcpListener::bind((bind, port))
            .with_context(|| format!("binding {bind} port {port}"))?;
        let name = name.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                thread::spawn(move || handle(&name, stream));
            }
        });
        Ok(())
    };
    listen(ECHO_PORT, |_, stream| echo(stream))?;
    listen(BANNER_PORT, banner)?;
    listen(SINK_PORT, |_, stream| sink(stream))?;
    listen(SOURCE_PORT, |_, stream| source(stream))?;
    listen(DEAF_PORT, |_, stream| stubborn::deaf(stream))?;
    listen(ENDLESS_PORT, |_, stream| stubborn::endless(stream))?;
    let datagrams = UdpSocket::bind((bind, UDP_PORT)).context("binding UDP")?;
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..length], from);
        }
    });
    // Last, so that a server which answers requests answers everything.
    listen(REQUEST_PORT, answer)?;
    println!("{name} serves");
    loop {
        thread::park();
    }
}

/// Prints the address of every peer that connects.
pub fn watch(bind: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(bind)?;
    for stream in listener.incoming() {
        println!("{}", stream?.peer_addr()?);
    }
    Ok(())
}

fn answer(name: &str, mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.starts_with("GET") {
            stream.write_all(format!("{name} {peer}\n").as_bytes())?;
        }
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn banner(name: &str, mut stream: TcpStream) -> Result<()> {
    stream.write_all(format!("220 {name}\n").as_bytes())?;
    echo(stream)
}

fn sink(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut state) = (0_u64, FNV_OFFSET);
    loop {
        let length = read_full(&mut stream, &mut buffer)?;
        state = checksum(state, &buffer[..length]);
        total += length as u64;
        if length < buffer.len() {
            break;
        }
    }
    stream.write_all(format!("{total} {state:016x}\n").as_bytes())?;
    Ok(())
}

fn source(mut stream: TcpStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let mut left: u64 = line.trim().parse()?;
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let length = left.min(buffer.len() as u64) as usize;
        pattern.fill(&mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Reads until the buffer is full or the stream ends.
pub(crate) fn read_full(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
