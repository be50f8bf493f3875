//! The ways in for fuzzing: what is done with the bytes that come out of netlink sockets.

use super::netlink::{Error, Messages, Netlink, Transport};
use super::{addresses, conntrack, nft};
use std::collections::VecDeque;
use std::io;

/// The kernel answers with these datagrams, whatever it is asked.
struct Replay<'a> {
    datagrams: &'a [&'a [u8]],
    queue: VecDeque<&'a [u8]>,
}

impl Transport for Replay<'_> {
    fn send(&mut self, _: &[u8]) -> Result<(), Error> {
        self.queue = self.datagrams.iter().copied().collect();
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let next = self.queue.pop_front();
        buffer.extend(next.ok_or(io::Error::from_raw_os_error(libc::EAGAIN))?);
        Ok(())
    }
}

/// Reads datagrams as events, as entries of tables, and as answers to a transaction (messages 1 to 3), to a dump
/// (message 4) and to a question (message 5). Returns sequence numbers and offsets of the errors of the transaction.
pub fn read(datagrams: &[&[u8]]) -> Vec<(u32, Option<usize>)> {
    for messages in datagrams.iter().map(|datagram| Messages::of(datagram)) {
        let payloads: Vec<_> = messages.map(|m| (m.message_type, m.payload)).collect();
        for (message_type, payload) in payloads {
            conntrack::fuzzing::read(payload);
            addresses::fuzzing::read(message_type, payload);
        }
    }
    nft::fuzzing::read(datagrams.iter().flat_map(|datagram| Messages::of(datagram)));
    let request = vec![0; super::netlink::HEADER];
    let mut socket = Netlink::over(Replay { datagrams, queue: VecDeque::new() });
    let answers = socket.transact(&request, 4).map(|answers| answers.answers).unwrap_or_default();
    let _ = socket.dump(request.clone(), |_| Ok(()));
    let _ = socket.get(request, |_| Ok(()));
    answers.into_iter().map(|answer| (answer.sequence, answer.offset)).collect()
}
