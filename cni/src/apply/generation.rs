//! The number of a namespace's ruleset, which every change of it raises: one cheap question tells
//! that nothing has changed since.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const NLM_F_REQUEST: u16 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
/// A netlink header and what every netfilter message adds to it.
const HEADER: usize = 20;

/// The ruleset's number in the calling thread's namespace.
pub(super) fn current() -> io::Result<u32> {
    let mut socket = File::from(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?);
    socket.write_all(&question())?;
    let mut answer = [0; 512];
    let length = socket.read(&mut answer)?;
    parse(&answer[..length]).ok_or_else(|| io::Error::other("no ruleset number in the answer"))
}

fn question() -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind(NFT_MSG_GETGEN).to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message
}

fn parse(message: &[u8]) -> Option<u32> {
    let answered = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if answered != kind(NFT_MSG_NEWGEN) {
        return None;
    }
    let mut attributes = message.get(HEADER..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let name = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if name == NFTA_GEN_ID {
            let value = attributes.get(4..8)?.try_into().ok()?;
            return Some(u32::from_be_bytes(value));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}
