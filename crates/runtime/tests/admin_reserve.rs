//! Servers that anybody reaches, where descriptors are short. The limit and the numbers are the whole
//! process's, so this is the only test of its process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use axum::Router;
use axum::routing::get;
use nix::sys::resource::{Resource, setrlimit};
use runtime::admin::Listeners;
use runtime::descriptors::{raise_limit, unreserved};

/// Each takes two of the 64 that are reserved.
const CLIENTS: usize = 20;
/// So many of them a server of everybody keeps, the newest.
const FEW: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_reaches_a_server_of_everybody_takes_few_of_the_reserve() {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024).expect("limits itself");
    raise_limit();
    let everybodys = serve(Listeners::wildcard(0, false).expect("binds"));
    let peoples = serve(Listeners::localhost(0).expect("binds"));
    let open = || unreserved(File::open("/dev/null").expect("opens"));
    let _held: Vec<_> = std::iter::from_fn(|| open().ok()).collect();

    let mut clients = connected(everybodys);
    // The last one first: once it is accepted the others have been.
    let newest = clients.split_off(CLIENTS - FEW);
    for mut client in newest.into_iter().rev() {
        assert!(is_answered(&mut client));
    }
    for client in &mut clients {
        assert!(!is_answered(client), "kept");
    }
    drop(clients);

    for mut client in connected(peoples) {
        assert!(is_answered(&mut client));
    }
}

/// Serves for as long as the process runs, and returns the port.
fn serve(listeners: Listeners) -> u16 {
    let port = listeners.addresses()[0].port();
    let router = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(listeners.serve("test", router));
    port
}

fn connected(port: u16) -> Vec<TcpStream> {
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    std::iter::repeat_with(connect).take(CLIENTS).collect()
}

fn is_answered(client: &mut TcpStream) -> bool {
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    // A connection that is closed fails at the one or the other.
    let asked = client.write_all(request);
    asked.is_ok() && client.read_to_string(&mut answer).is_ok() && answer.ends_with("hello")
}
