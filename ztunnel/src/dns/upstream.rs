//! Asks the nameservers of the tunnel's own resolv.conf, from the client's network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::Name;
use rand::Rng;
use runtime::descriptors;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time;

use crate::proxy::netns;

const PORT: u16 = 53;
/// One try over UDP.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);
/// One try over TCP, connecting included.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often each nameserver is tried.
const ROUNDS: usize = 2;
/// The file is read again at most this often.
const REREAD: Duration = Duration::from_secs(5);

/// The nameservers, as the file has them now.
#[derive(Debug)]
pub(super) struct Nameservers {
    path: PathBuf,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

/// From where questions are asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) netns: Option<&'a OwnedFd>,
    pub(super) packet_mark: Option<u32>,
}

/// Which answers are to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Those that repeat its letters' case.
    Kept,
    Any,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("no nameserver is configured")]
    NoNameserver,
    #[error("nameserver {0}: {1}")]
    Io(SocketAddr, io::Error),
    #[error("nameserver {0}: no answer in time")]
    Timeout(SocketAddr),
    #[error("nameserver {0}: another spelling than was asked for, and over TCP {1}")]
    Spelling(SocketAddr, Box<UpstreamError>),
    #[error("the question cannot be encoded")]
    Encode,
}

// === impl Nameservers ===

impl Nameservers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::default(),
        }
    }

    fn list(&self) -> Vec<SocketAddr> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((at, servers)) if at.elapsed() < REREAD => servers.clone(),
            last => {
                let servers = match std::fs::read_to_string(&self.path) {
                    Ok(text) => nameservers(&text),
                    // Rewritten just now, perhaps: what was there before is the better guess.
                    Err(_) => last.as_ref().map(|(_, s)| s.clone()).unwrap_or_default(),
                };
                *read = Some((Instant::now(), servers.clone()));
                servers
            }
        }
    }

    /// Asks one after the other until one answers.
    pub(super) async fn ask(
        &self,
        question: &Message,
        origin: Origin<'_>,
    ) -> Result<Message, UpstreamError> {
        let servers = self.list();
        let mut last = UpstreamError::NoNameserver;
        for _ in 0..ROUNDS {
            for server in &servers {
                match exchange(question, *server, origin).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }
}

/// `nameserver` lines of resolv.conf.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then_some(())?;
            let address: IpAddr = words.next()?.parse().ok()?;
            Some(SocketAddr::new(address, PORT))
        })
        .collect()
}

async fn exchange(
    question: &Message,
    server: SocketAddr,
    origin: Origin<'_>,
) -> Result<Message, UpstreamError> {
    let mut disguised = question.clone();
    // An id and a spelling nobody can guess, and a port of its own from the kernel.
    disguised.metadata.id = rand::random();
    for query in &mut disguised.queries {
        let spelled = respelled(query.name(), &mut rand::rng());
        query.set_name(spelled);
    }
    let mut answer = match exchange_as_is(&disguised, server, origin, Spelling::Kept).await {
        // A server that keeps no spelling and can't be reached over TCP is believed as it is: its
        // id and port are what there is.
        Err(error @ UpstreamError::Spelling(..)) => {
            tracing::debug!(%error, "asked again without a spelling");
            exchange_as_is(&disguised, server, origin, Spelling::Any).await?
        }
        answer => answer?,
    };
    for (asked, disguise) in question.queries.iter().zip(&disguised.queries) {
        let sections = [
            &mut answer.answers,
            &mut answer.authorities,
            &mut answer.additionals,
        ];
        for record in sections.into_iter().flatten() {
            if record.name == *disguise.name() {
                record.name = asked.name().clone();
            }
        }
    }
    Ok(answer)
}

/// The name with each letter's case drawn, which servers repeat and forgers must guess
/// (draft-vixie-dnsext-dns0x20).
fn respelled(name: &Name, random: &mut impl Rng) -> Name {
    let labels = name.iter().map(|label| -> Vec<u8> {
        let bytes = label.iter().copied();
        bytes
            .map(|byte| match random.random() {
                true => byte.to_ascii_uppercase(),
                false => byte.to_ascii_lowercase(),
            })
            .collect()
    });
    match Name::from_labels(labels) {
        Ok(mut spelled) => {
            spelled.set_fqdn(name.is_fqdn());
            spelled
        }
        // Not one that could be written either; its encoding tells.
        Err(_) => name.clone(),
    }
}

async fn exchange_as_is(
    question: &Message,
    server: SocketAddr,
    origin: Origin<'_>,
    spelling: Spelling,
) -> Result<Message, UpstreamError> {
    let bytes = question.to_vec().map_err(|_| UpstreamError::Encode)?;
    let failed = |error| UpstreamError::Io(server, error);
    let timeout = |_| UpstreamError::Timeout(server);
    let over_udp = over_udp(question, &bytes, server, origin);
    let answer = time::timeout(UDP_TIMEOUT, over_udp)
        .await
        .map_err(timeout)?
        .map_err(failed)?;
    // Another spelling is a server's that does not keep it, or a forger's. Over TCP the address is
    // proof enough.
    let is_spelled = spelling == Spelling::Any || is_spelled_alike(question, &answer);
    if !answer.metadata.truncation && is_spelled {
        return Ok(answer);
    }
    let over_tcp = over_tcp(question, &bytes, server, origin);
    let result = match time::timeout(TCP_TIMEOUT, over_tcp).await {
        Ok(answer) => answer.map_err(failed),
        Err(elapsed) => Err(timeout(elapsed)),
    };
    match is_spelled {
        true => result,
        false => result.map_err(|error| UpstreamError::Spelling(server, error.into())),
    }
}

async fn over_udp(
    question: &Message,
    bytes: &[u8],
    server: SocketAddr,
    origin: Origin<'_>,
) -> io::Result<Message> {
    let socket = origin.socket(server, Type::DGRAM)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    // Only packets from the server arrive, and an unreachable port is an error at once.
    socket.connect(&server.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && answers(question, &answer)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(
    question: &Message,
    bytes: &[u8],
    server: SocketAddr,
    origin: Origin<'_>,
) -> io::Result<Message> {
    let socket = origin.socket(server, Type::STREAM)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let mut stream = socket.connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(answer) if answers(question, &answer) => Ok(answer),
        _ => Err(io::Error::other("the answer is to another question")),
    }
}

fn answers(question: &Message, answer: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && (answer.queries == question.queries
            // A server that could not even read the question says no more than that.
            || (answer.queries.is_empty() && is_of_the_server(answer)))
}

fn is_of_the_server(answer: &Message) -> bool {
    matches!(
        answer.metadata.response_code,
        ResponseCode::FormErr
            | ResponseCode::ServFail
            | ResponseCode::NotImp
            | ResponseCode::Refused
    )
}

fn is_spelled_alike(question: &Message, answer: &Message) -> bool {
    let pairs = question.queries.iter().zip(&answer.queries);
    pairs
        .into_iter()
        .all(|(one, other)| one.name().eq_case(other.name()))
}

// === impl Origin ===

impl Origin<'_> {
    fn socket(self, server: SocketAddr, kind: Type) -> io::Result<Socket> {
        netns::within(self.netns, || {
            let socket = Socket::new(Domain::for_address(server), kind.nonblocking(), None)?;
            let socket = descriptors::unreserved(socket)?;
            if let Some(packet_mark) = self.packet_mark {
                socket.set_mark(packet_mark)?;
            }
            Ok(socket)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn a_name_is_asked_for_in_a_spelling_of_its_own() {
        let name = Name::from_str("a-quite-long-name.of-some.example.com.").expect("a name");
        let [one, other] = [(); 2].map(|()| respelled(&name, &mut rand::rng()));
        assert_eq!(one, name);
        assert!(!one.eq_case(&other));
        assert_eq!(one.is_fqdn(), name.is_fqdn());
    }

    #[test]
    fn only_what_a_server_says_of_itself_needs_no_question() {
        let mut question = Message::query();
        question.add_query(hickory_proto::op::Query::query(
            Name::from_str("example.com.").expect("a name"),
            hickory_proto::rr::RecordType::A,
        ));
        let id = question.metadata.id;
        for (code, is_answer) in [
            (ResponseCode::FormErr, true),
            (ResponseCode::ServFail, true),
            (ResponseCode::Refused, true),
            (ResponseCode::NoError, false),
            (ResponseCode::NXDomain, false),
        ] {
            let bare = Message::error_msg(id, question.metadata.op_code, code);
            assert_eq!(answers(&question, &bare), is_answer, "{code}");
        }
    }

    #[test]
    fn nameservers_are_read_and_the_rest_is_not() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.96.0.10\n\
                    nameserver\tfd00:96::a \nnameserver nonsense\noptions ndots:5\n";
        assert_eq!(
            nameservers(text),
            [
                "10.96.0.10:53".parse().expect("address"),
                "[fd00:96::a]:53".parse().expect("address")
            ]
        );
    }
}
