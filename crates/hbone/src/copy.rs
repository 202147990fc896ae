//! Moves bytes between an application's socket and a tunnelled stream, or between two sockets.
//!
//! Half closes pass through. A connection of which one direction has ended and the other
//! is silent ends at a deadline, and so does one whose bytes nobody takes and whose sender has
//! gone. Buffers are the thread's, not the connection's: an idle
//! connection holds none.

mod buffer;
mod socket;
mod splice;
mod tunnel;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use runtime::memory::shedding::WAITING;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time;

use crate::stream::Stream;

/// Bytes a direction moves before it lets its neighbours run.
const TURN: usize = 1 << 20;

/// Told of bytes once they have been handed on.
pub trait Meter {
    /// Bytes towards the server.
    fn received(&self, bytes: u64);
    /// Bytes towards the client.
    fn sent(&self, bytes: u64);
}

/// Which end of the copied connection the first socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The socket is the client's: what is read from it goes to the server.
    Client,
    /// The socket is the server's.
    Server,
}

/// Why a copy ended before both directions did.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("application connection: {0}")]
    Socket(#[from] io::Error),
    #[error("tunnel: {0}")]
    Tunnel(#[from] h2::Error),
    #[error("half closed and silent for too long")]
    HalfClosed,
    #[error("memory is short, and nobody takes its bytes")]
    MemoryShort,
}

/// One end of a copy.
trait End {
    /// Has its peer see a broken connection.
    fn abort(&mut self);
}

/// Both ends of a copy. They are aborted unless it runs to its end, whatever keeps it from that:
/// a peer must not take what was cut for all there was.
struct Ends<'a, E: End> {
    tcp: &'a mut TcpStream,
    other: &'a mut E,
    complete: bool,
}

/// Copies between a socket and a stream until both directions have ended. On an error, and where
/// it is dropped, both ends are aborted.
pub async fn tunnel(
    tcp: &mut TcpStream,
    stream: &mut Stream,
    side: Side,
    half_closed: Duration,
    meter: &impl Meter,
) -> Result<(), CopyError> {
    let progress = Progress::new(meter, side);
    let mut ends = Ends::new(tcp, stream);
    let result = {
        let (mut reader, mut writer) = ends.tcp.split();
        let Stream {
            sender, receiver, ..
        } = &mut *ends.other;
        let outgoing = pin!(tunnel::to_stream(
            &mut reader,
            sender,
            half_closed,
            &progress
        ));
        let incoming = pin!(tunnel::from_stream(receiver, &mut writer, &progress));
        both(outgoing, incoming, half_closed, &progress).await
    };
    ends.complete = result.is_ok();
    result
}

/// Copies between a client's and a server's socket until both directions have ended.
/// On an error, and where it is dropped, both are aborted.
pub async fn sockets(
    client: &mut TcpStream,
    server: &mut TcpStream,
    half_closed: Duration,
    meter: &impl Meter,
) -> Result<(), CopyError> {
    let progress = Progress::new(meter, Side::Client);
    let mut ends = Ends::new(client, server);
    let result = {
        let (mut client_reader, mut client_writer) = ends.tcp.split();
        let (mut server_reader, mut server_writer) = ends.other.split();
        let outgoing = |bytes| progress.outgoing(bytes);
        let incoming = |bytes| progress.incoming(bytes);
        let to_server = pin!(socket::pump(
            &mut client_reader,
            &mut server_writer,
            half_closed,
            outgoing,
        ));
        let to_client = pin!(socket::pump(
            &mut server_reader,
            &mut client_writer,
            half_closed,
            incoming,
        ));
        both(to_server, to_client, half_closed, &progress).await
    };
    ends.complete = result.is_ok();
    result
}

/// Makes the socket answer its peer with a reset when it is dropped.
pub fn abort(tcp: &TcpStream) {
    // Where it fails the socket is closed already.
    let _ = tcp.set_zero_linger();
}

/// The directions are the caller's: taken by value, each would have its place twice in the future
/// of every connection, as argument and pinned.
async fn both<M: Meter>(
    outgoing: impl Future<Output = Result<(), CopyError>> + Unpin,
    incoming: impl Future<Output = Result<(), CopyError>> + Unpin,
    half_closed: Duration,
    progress: &Progress<'_, M>,
) -> Result<(), CopyError> {
    match select(outgoing, incoming).await {
        Either::Left((ended, rest)) => {
            ended?;
            until_silent(rest, half_closed, progress).await
        }
        Either::Right((ended, rest)) => {
            ended?;
            until_silent(rest, half_closed, progress).await
        }
    }
}

async fn until_silent<M: Meter>(
    mut rest: impl Future<Output = Result<(), CopyError>> + Unpin,
    half_closed: Duration,
    progress: &Progress<'_, M>,
) -> Result<(), CopyError> {
    loop {
        let before = progress.moved.get();
        match time::timeout(half_closed, &mut rest).await {
            Ok(result) => return result,
            Err(_) if progress.moved.get() == before => return Err(CopyError::HalfClosed),
            Err(_) => {}
        }
    }
}

// === impl End ===

impl End for TcpStream {
    fn abort(&mut self) {
        abort(self);
    }
}

impl End for Stream {
    fn abort(&mut self) {
        self.abort();
    }
}

// === impl Ends ===

impl<'a, E: End> Ends<'a, E> {
    fn new(tcp: &'a mut TcpStream, other: &'a mut E) -> Self {
        Self {
            tcp,
            other,
            complete: false,
        }
    }
}

impl<E: End> Drop for Ends<'_, E> {
    fn drop(&mut self) {
        if !self.complete {
            self.tcp.abort();
            // A panic within h2 leaves a lock that nobody may take again: trying to ends the process.
            if !std::thread::panicking() {
                self.other.abort();
            }
        }
    }
}

/// Waits until some of the bytes of `source` that are `held` can be handed on, but not for ever.
async fn room<T, E>(
    source: &TcpStream,
    half_closed: Duration,
    held: usize,
    mut room: impl FnMut(&mut Context<'_>) -> Poll<Result<T, E>>,
) -> Result<T, CopyError>
where
    CopyError: From<E>,
{
    let room = poll_fn(|cx| room(cx).map_err(CopyError::from));
    tokio::select! {
        biased;
        room = room => room,
        error = patience(source, half_closed, held) => Err(error),
    }
}

/// Returns why bytes wait no longer. Who gave them may have closed or died meanwhile, which nobody
/// reads as long as there are bytes before it: then they wait no longer than for the rest of a
/// half-closed connection. And they take memory, which may be short.
async fn patience(source: &TcpStream, half_closed: Duration, held: usize) -> CopyError {
    let deserted = async {
        loop {
            time::sleep(half_closed).await;
            if has_ended(source) {
                break;
            }
        }
    };
    tokio::select! {
        () = deserted => CopyError::HalfClosed,
        () = WAITING.shed(|| held, || 0) => CopyError::MemoryShort,
    }
}

/// Whether the peer will send no more, however much of what it has sent is unread.
fn has_ended(source: &TcpStream) -> bool {
    let ready = source.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}

/// Counts what moves, for the meter and for the half-closed deadline.
struct Progress<'a, M> {
    meter: &'a M,
    side: Side,
    moved: Cell<u64>,
}

impl<'a, M: Meter> Progress<'a, M> {
    fn new(meter: &'a M, side: Side) -> Self {
        Self {
            meter,
            side,
            moved: Cell::new(0),
        }
    }

    /// Bytes read from the (first) socket.
    fn outgoing(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.moved.set(self.moved.get() + bytes);
        match self.side {
            Side::Client => self.meter.received(bytes),
            Side::Server => self.meter.sent(bytes),
        }
    }

    /// Bytes written to the (first) socket.
    fn incoming(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.moved.set(self.moved.get() + bytes);
        match self.side {
            Side::Client => self.meter.sent(bytes),
            Side::Server => self.meter.received(bytes),
        }
    }
}
