//! The threads of the data path: each with its listener, its tunnels and its connections to
//! endpoints, sharing nothing but certificates.

mod crew;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hbone::pool::Pool;
use hbone::settings::Settings;
use http::HeaderMap;
use identity::WorkloadCertificate;
use runtime::allocator;
use runtime::drain::{self, Mode, Watch};
use runtime::vital;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time;

use self::crew::Handed;
pub(crate) use self::crew::{Crew, TunnelPlace};
use crate::drain::Drain;
use crate::limits::Limits;
use crate::listener;
use crate::message::Pipeline;
use crate::tunnel;
use crate::upstream::{Connections, Dialer};

/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Windows of a tunnel's streams. A client that sends faster than its endpoint reads has as much
/// waiting here; half a megabyte is 10 Gbit/s at 0.4 ms.
const STREAM_WINDOW: u32 = 512 << 10;

/// The waypoint's own certificate.
pub trait Certificates: Send + Sync {
    /// A valid one, or why there is none.
    fn current(&self) -> Result<Arc<WorkloadCertificate>, String>;
}

/// What all workers are started with.
pub struct Setup {
    pub listen: SocketAddr,
    pub limits: Limits,
    pub tunnel: Settings,
    pub certificates: Arc<dyn Certificates>,
    /// What every CONNECT to an endpoint says besides its target.
    pub connect_headers: HeaderMap,
}

/// Handles of all workers. Dropping it cuts everything.
pub struct Workers {
    threads: Vec<Thread>,
    drain: drain::Trigger,
    address: SocketAddr,
}

struct Thread {
    /// Dropped to end the thread.
    stop: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

/// What the connections of one thread share.
pub(crate) struct Worker<P> {
    index: usize,
    pub(crate) crew: Arc<Crew>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) pipeline: Rc<P>,
    pub(crate) upstream: Connections,
    pub(crate) limits: Rc<Limits>,
    pub(crate) settings: Rc<Settings>,
    pub(crate) drain: Drain,
}

/// A tunnel's settings for a waypoint: clients' bytes wait in their own pods, not here.
pub fn tunnel_settings() -> Settings {
    let settings = Settings::default();
    Settings {
        stream_window: STREAM_WINDOW,
        connection_window: Settings::window_for(STREAM_WINDOW, settings.client_streams),
        ..settings
    }
}

// === impl Workers ===

impl Workers {
    /// Starts `count` threads, each with the pipeline that `make` makes on it.
    pub fn start<P, F>(count: usize, setup: Arc<Setup>, make: F) -> io::Result<Self>
    where
        P: Pipeline + 'static,
        F: Fn(Connections) -> P + Clone + Send + 'static,
    {
        let (drain, _) = drain::channel();
        let mut address = setup.listen;
        let mut threads = Vec::new();
        let capacity = setup.limits.capacity.clone();
        let (crew, handed) = Crew::new(count.max(1), capacity);
        for (index, handed) in handed.into_iter().enumerate() {
            let listener = match address.ip().is_unspecified() {
                true => listener::listen(address.port())?,
                false => listener::bind(address)?,
            };
            // The others take the port that the first was given.
            address.set_port(listener.local_addr()?.port());
            let (setup, make, watch) = (setup.clone(), make.clone(), drain.watch());
            let crew = crew.clone();
            let start = move || Worker::new(index, crew, setup, make, watch);
            threads.push(Thread::start(
                index,
                listener,
                handed,
                drain.watch(),
                start,
            )?);
        }
        Ok(Self {
            threads,
            drain,
            address,
        })
    }

    /// Where the workers listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, tells peers to go elsewhere, waits for what runs until the deadline, and
    /// then cuts it.
    pub async fn drain(self, deadline: Duration) {
        self.drain.signal(Mode::Graceful);
        if time::timeout(deadline, self.drain.drained()).await.is_err() {
            tracing::info!("connections are cut at the drain's deadline");
        }
        for thread in self.threads {
            drop(thread.stop);
            // A worker only ends its loop, so this is a matter of moments.
            let _ = tokio::task::spawn_blocking(move || thread.handle.join()).await;
        }
    }
}

// === impl Thread ===

impl Thread {
    fn start<P: Pipeline + 'static>(
        index: usize,
        listener: TcpListener,
        mut handed: UnboundedReceiver<Handed>,
        watch: Watch,
        start: impl FnOnce() -> Rc<Worker<P>> + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = vital::thread(format!("worker-{index}"), move || {
            let local = LocalSet::new();
            local.spawn_local(allocator::tidy_up());
            local.block_on(&runtime, async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "can't listen"),
                };
                let worker = start();
                let accepting = accept(listener, worker.clone(), watch);
                spawn_local(vital::task("accepting", accepting));
                spawn_local(vital::task("taking over", async move {
                    while let Some(handed) = handed.recv().await {
                        worker.take(handed);
                    }
                }));
                // Whatever still runs when the handle goes is cut.
                let _ = stopped.await;
            });
        })?;
        Ok(Self { stop, handle })
    }
}

// === impl Worker ===

impl<P: Pipeline + 'static> Worker<P> {
    fn new(
        index: usize,
        crew: Arc<Crew>,
        setup: Arc<Setup>,
        make: impl Fn(Connections) -> P,
        watch: Watch,
    ) -> Rc<Self> {
        let limits = Rc::new(setup.limits.clone());
        let settings = Rc::new(setup.tunnel.clone());
        let dialer = Dialer {
            certificates: setup.certificates.clone(),
            tunnels: Pool::new(limits.pool_idle_timeout),
            settings: settings.clone(),
            headers: setup.connect_headers.clone(),
            limits: limits.clone(),
        };
        let upstream = Connections::new(dialer, limits.clone());
        Rc::new(Self {
            pipeline: Rc::new(make(upstream.clone())),
            drain: Drain::follow(watch, limits.drain_grace),
            index,
            crew,
            setup,
            upstream,
            limits,
            settings,
        })
    }

    /// Serves a tunnel that another worker accepted.
    fn take(self: &Rc<Self>, handed: Handed) {
        match TcpStream::from_std(handed.tcp) {
            Ok(tcp) => self.serve(tcp, handed.peer, handed.place),
            Err(error) => tracing::debug!(%error, peer = %handed.peer, "tunnel lost"),
        }
    }

    fn serve(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr, place: TunnelPlace) {
        spawn_local(tunnel::serve(self.clone(), tcp, peer, place));
    }

    /// Gives an accepted connection to the worker that has fewest.
    fn accepted(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let Some(place) = self.crew.tunnel(self.index) else {
            metrics::counter!("waypoint_overload_total", "of" => "tunnels").increment(1);
            return tracing::debug!(%peer, "too many tunnels");
        };
        admit(&tcp);
        if place.member == self.index {
            return self.serve(tcp, peer, place);
        }
        match tcp.into_std() {
            Ok(tcp) => self.crew.hand(Handed { tcp, peer, place }),
            Err(error) => tracing::debug!(%error, %peer, "tunnel lost"),
        }
    }
}

/// Accepts until the drain begins.
async fn accept<P: Pipeline + 'static>(
    listener: tokio::net::TcpListener,
    worker: Rc<Worker<P>>,
    mut watch: Watch,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = watch.signaled() => return,
        };
        match accepted {
            Ok((tcp, peer)) => worker.accepted(tcp, peer),
            Err(error) => {
                tracing::warn!(%error, "can't accept");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(tcp: &TcpStream) {
    // They fail only on a connection that is already gone.
    let _ = tcp.set_nodelay(true);
    let _ = socket2::SockRef::from(tcp).set_keepalive(true);
}

#[cfg(test)]
mod tests;
