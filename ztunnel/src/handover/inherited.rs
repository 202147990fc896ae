//! Sockets that a predecessor has handed over. Nothing is taken from their queues before the
//! gate opens: whoever arrives earlier is still the predecessor's.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use tokio::sync::watch;

/// Closed until this process takes over. Clones open together.
#[derive(Clone, Debug)]
pub struct Gate(Option<watch::Receiver<bool>>);

/// Opens a gate.
#[derive(Debug)]
pub struct Gatekeeper(watch::Sender<bool>);

/// What one pod's, or the process's own, traffic arrives at; empty where it is to be made anew.
#[derive(Debug)]
pub struct Inherited {
    tcp: Vec<(u16, TcpListener)>,
    udp: Vec<(u16, UdpSocket)>,
    gate: Gate,
}

// === impl Gate ===

impl Gate {
    /// A gate that was never closed.
    pub fn open() -> Self {
        Self(None)
    }

    /// Waits until it is open.
    pub async fn opened(&mut self) {
        if let Some(opened) = &mut self.0 {
            // Nobody is left to open it: traffic is not held for ever.
            let _ = opened.wait_for(|open| *open).await;
        }
    }
}

// === impl Gatekeeper ===

impl Gatekeeper {
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn gate(&self) -> Gate {
        Gate(Some(self.0.subscribe()))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

impl Default for Gatekeeper {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Inherited ===

impl Inherited {
    /// Nothing.
    pub fn none() -> Self {
        Self::behind(Gate::open())
    }

    pub fn is_nothing(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    pub fn behind(gate: Gate) -> Self {
        Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            gate,
        }
    }

    pub fn add_tcp(&mut self, port: u16, sockets: impl IntoIterator<Item = OwnedFd>) {
        let sockets = sockets.into_iter();
        self.tcp
            .extend(sockets.map(|fd| (port, TcpListener::from(fd))));
    }

    pub fn add_udp(&mut self, port: u16, sockets: impl IntoIterator<Item = OwnedFd>) {
        let sockets = sockets.into_iter();
        self.udp
            .extend(sockets.map(|fd| (port, UdpSocket::from(fd))));
    }

    /// Takes the listeners of a port.
    pub fn tcp(&mut self, port: u16) -> Vec<TcpListener> {
        let of_port = self.tcp.extract_if(.., |(own, _)| *own == port);
        of_port.map(|(_, listener)| listener).collect()
    }

    /// Takes the datagram sockets of a port.
    pub fn udp(&mut self, port: u16) -> Vec<UdpSocket> {
        let of_port = self.udp.extract_if(.., |(own, _)| *own == port);
        of_port.map(|(_, socket)| socket).collect()
    }

    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// A share for each of `count` workers. Every listener is in one of them at least, for
    /// nobody else empties its queue; where there are fewer listeners than workers, some have
    /// the same: one more of them in the namespace would take connections that nobody serves
    /// should this process not get ready.
    pub fn shares(mut self, count: usize) -> io::Result<Vec<Self>> {
        let mut shares: Vec<_> = (0..count).map(|_| Self::behind(self.gate())).collect();
        while let Some((port, _)) = self.tcp.first() {
            let port = *port;
            let listeners = self.tcp(port);
            for index in 0..count.max(listeners.len()) {
                let listener = listeners[index % listeners.len()].try_clone()?;
                shares[index % count].tcp.push((port, listener));
            }
        }
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ports that each of `workers` accepts from when `sockets` were handed over.
    fn shared(sockets: usize, workers: usize) -> Vec<Vec<u16>> {
        let mut inherited = Inherited::none();
        let mut ports = Vec::new();
        for _ in 0..sockets {
            let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
            ports.push(listener.local_addr().expect("address").port());
            inherited.add_tcp(15001, [listener.into()]);
        }
        let shares = inherited.shares(workers).expect("descriptors");
        let number = |listener: &TcpListener| {
            let port = listener.local_addr().expect("address").port();
            let place = ports.iter().position(|own| *own == port).expect("known");
            u16::try_from(place).expect("few")
        };
        let of = |mut share: Inherited| share.tcp(15001).iter().map(number).collect();
        shares.into_iter().map(of).collect()
    }

    #[test]
    fn every_listener_is_served_and_every_worker_serves() {
        assert_eq!(shared(2, 2), [[0], [1]]);
        assert_eq!(shared(3, 2), [vec![0, 2], vec![1]]);
        assert_eq!(shared(1, 3), [[0], [0], [0]]);
        assert_eq!(shared(2, 3), [[0], [1], [0]]);
        assert_eq!(shared(0, 2), [vec![], Vec::<u16>::new()]);
    }

    #[tokio::test]
    async fn a_gate_opens_once_and_never_holds_for_nobody() {
        let gatekeeper = Gatekeeper::new();
        let mut gate = gatekeeper.gate();
        let waiting = tokio::spawn(async move { gate.opened().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gatekeeper.open();
        waiting.await.expect("opened");
        gatekeeper.gate().opened().await;

        let mut orphaned = Gatekeeper::new().gate();
        orphaned.opened().await;
        Gate::open().opened().await;
    }
}
