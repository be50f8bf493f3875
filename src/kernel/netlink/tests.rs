use super::*;
use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR};
use nft_table::netlink::Writer;
use std::collections::VecDeque;

/// A message type of some subsystem.
const THING: u16 = 0x20;

/// On every message of a dump (`linux/netlink.h`).
const NLM_F_MULTI: u16 = 2;

/// What `recvmsg` returns, one after the other.
type Datagrams = VecDeque<io::Result<Vec<u8>>>;

/// A kernel that knows its answers beforehand.
#[derive(Default)]
struct Script {
    sent: Vec<Vec<u8>>,
    /// What can be read now.
    queue: Datagrams,
    /// What can be read after each request.
    answers: VecDeque<Datagrams>,
}

impl Transport for Script {
    fn send(&mut self, messages: &[u8]) -> Result<(), Error> {
        assert!(self.queue.is_empty(), "sent before the earlier answers are read");
        self.sent.push(messages.to_vec());
        self.queue = self.answers.pop_front().unwrap_or_default();
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.extend(self.queue.pop_front().unwrap_or_else(|| errno(libc::EAGAIN))?);
        Ok(())
    }
}

fn errno<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

/// A socket whose first request, which has number 1, is answered so.
fn answering<const N: usize>(answers: [io::Result<Vec<u8>>; N]) -> Netlink<Script> {
    Netlink::over(Script { answers: [answers.into()].into(), ..Script::default() })
}

fn message(message_type: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(message_type.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn thing(sequence: u32, payload: &[u8]) -> Vec<u8> {
    message(THING, NLM_F_MULTI, sequence, payload)
}

fn done(sequence: u32, errno: i32) -> Vec<u8> {
    message(NLMSG_DONE, NLM_F_MULTI, sequence, &(-errno).to_ne_bytes())
}

/// An error, or with 0 an acknowledgement, of a request that was `request`.
fn error(sequence: u32, errno: i32, request: &[u8]) -> Vec<u8> {
    message(NLMSG_ERROR, NLM_F_CAPPED, sequence, &[&(-errno).to_ne_bytes(), request].concat())
}

fn request() -> Vec<u8> {
    message(THING, 0, 0, b"what")
}

/// Everything that a dump returns, and how it ends.
fn dump(socket: &mut Netlink<Script>) -> (Vec<Vec<u8>>, Result<Dumped, Error>) {
    let mut found = Vec::new();
    let dumped = socket.dump(request(), |message| {
        assert_eq!(message.message_type, THING);
        found.push(message.payload.to_vec());
        Ok(())
    });
    (found, dumped)
}

#[test]
fn a_dump_is_all_messages_of_all_datagrams_up_to_its_end() {
    let first = [thing(1, b"one"), thing(1, b"three")].concat();
    let mut socket = answering([Ok(first), Ok(thing(1, b"")), Ok(done(1, 0))]);
    let (found, dumped) = dump(&mut socket);
    assert_eq!(found, [b"one".to_vec(), b"three".to_vec(), b"".to_vec()]);
    assert_eq!(dumped.unwrap(), Dumped::Complete);
}

#[test]
fn requests_are_numbered_one_after_the_other() {
    let mut socket = answering([Ok(done(1, 0))]);
    socket.transport.answers.push_back([Ok(done(2, 0))].into());
    assert_eq!(dump(&mut socket).1.unwrap(), Dumped::Complete);
    assert_eq!(dump(&mut socket).1.unwrap(), Dumped::Complete);
    let sent = socket.transport.sent.iter().flat_map(|bytes| Messages::of(bytes));
    assert_eq!(sent.map(|message| message.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(socket.next_sequence(), 3);
}

#[test]
fn answers_to_other_requests_are_not_ours() {
    let others = [thing(7, b"theirs"), done(7, libc::EPERM), thing(1, b"ours")].concat();
    let mut socket = answering([Ok(others), Ok(done(1, 0))]);
    let (found, dumped) = dump(&mut socket);
    assert_eq!(found, [b"ours".to_vec()]);
    assert_eq!(dumped.unwrap(), Dumped::Complete);
}

#[test]
fn what_is_left_of_earlier_answers_is_read_before_a_request_is_sent() {
    let mut socket = answering([Ok(done(1, 0))]);
    socket.transport.queue =
        [Ok(thing(1, b"stale")), errno(libc::ENOBUFS), errno(libc::EINTR), Ok(done(1, 0))].into();
    // The script refuses to be sent anything before.
    let (found, dumped) = dump(&mut socket);
    assert!(found.is_empty());
    assert_eq!(dumped.unwrap(), Dumped::Complete);
}

#[test]
fn a_signal_interrupts_nothing() {
    let mut socket =
        answering([errno(libc::EINTR), Ok(thing(1, b"one")), errno(libc::EINTR), Ok(done(1, 0))]);
    let (found, dumped) = dump(&mut socket);
    assert_eq!((found.len(), dumped.unwrap()), (1, Dumped::Complete));
}

#[test]
fn a_change_interrupts_a_dump_whichever_message_says_so() {
    let interrupted = NLM_F_MULTI | NLM_F_DUMP_INTR;
    let code = 0_i32.to_ne_bytes();
    for answers in [
        [message(THING, interrupted, 1, b"one"), thing(1, b"two"), done(1, 0)],
        [thing(1, b"one"), thing(1, b"two"), message(NLMSG_DONE, interrupted, 1, &code)],
        [thing(1, b"one"), thing(1, b"two"), done(1, libc::EINTR)],
        [thing(1, b"one"), thing(1, b"two"), error(1, libc::EINTR, b"")],
    ] {
        let (found, dumped) = dump(&mut answering(answers.map(Ok)));
        // What was dumped before is there for those who can use it.
        assert_eq!((found.len(), dumped.unwrap()), (2, Dumped::Interrupted));
    }
}

#[test]
fn lost_messages_interrupt_a_dump() {
    let mut socket = answering([Ok(thing(1, b"one")), errno(libc::ENOBUFS), Ok(done(1, 0))]);
    let (found, dumped) = dump(&mut socket);
    assert_eq!((found.len(), dumped.unwrap()), (1, Dumped::Interrupted));
}

#[test]
fn an_error_ends_a_dump() {
    for answer in [error(1, libc::EPERM, b""), done(1, libc::EPERM)] {
        let (found, dumped) = dump(&mut answering([Ok([thing(1, b"one"), answer].concat())]));
        let error = dumped.unwrap_err();
        assert_eq!((found.len(), error.errno()), (1, Some(libc::EPERM)));
        assert_eq!(error.to_string(), "Operation not permitted (os error 1)");
    }
}

#[test]
fn an_answer_without_an_end_is_an_error() {
    let (_, dumped) = dump(&mut answering([Ok(thing(1, b"one"))]));
    assert!(matches!(dumped, Err(Error::NoEnd)), "{dumped:?}");
    // A message that is cut off is none.
    let mut cut = done(1, 0);
    cut.truncate(HEADER + 2);
    let (_, dumped) = dump(&mut answering([Ok(cut)]));
    assert!(matches!(dumped, Err(Error::NoEnd)), "{dumped:?}");
}

#[test]
fn another_error_of_the_socket_is_passed_on() {
    let (_, dumped) = dump(&mut answering([errno(libc::ENOMEM)]));
    let error = dumped.unwrap_err();
    assert_eq!(error.to_string(), "receiving over netlink: Cannot allocate memory (os error 12)");
    assert_eq!(error.errno(), None, "not an answer of the kernel");
}

#[test]
fn after_a_message_that_the_caller_cannot_read_the_socket_is_as_good_as_before() {
    let mut socket = answering([Ok(thing(1, b"one")), Ok(done(1, 0))]);
    socket.transport.answers.push_back([Ok(done(2, 0))].into());
    let dumped = socket.dump(request(), |_| Err("not a thing".into()));
    assert!(matches!(dumped, Err(Error::Malformed(_))), "{dumped:?}");
    assert_eq!(dump(&mut socket).1.unwrap(), Dumped::Complete);
}

#[test]
fn messages_of_netlink_itself_are_not_the_callers() {
    let (noop, overrun) = (message(1, 0, 1, b""), message(4, 0, 1, b""));
    let (found, dumped) = dump(&mut answering([Ok([noop, overrun, done(1, 0)].concat())]));
    assert_eq!((found.len(), dumped.unwrap()), (0, Dumped::Complete));
}

#[test]
fn a_single_answer_needs_no_end() {
    let mut found: Vec<u8> = Vec::new();
    let mut socket = answering([Ok(message(THING, 0, 1, b"one"))]);
    let each = |message: &Message<'_>| {
        found.extend(message.payload);
        Ok(())
    };
    socket.get(request(), each).unwrap();
    assert_eq!(found, b"one");
    let refused = answering([Ok(error(1, libc::ENOENT, b""))]).get(request(), |_| Ok(()));
    assert_eq!(refused.unwrap_err().errno(), Some(libc::ENOENT));
    let interrupted = answering([Ok(error(1, libc::EINTR, b""))]).get(request(), |_| Ok(()));
    assert!(matches!(interrupted, Err(Error::Interrupted { attempts: 1 })), "{interrupted:?}");
    let lost = answering([errno(libc::ENOBUFS)]).get(request(), |_| Ok(()));
    assert!(matches!(lost, Err(Error::NoEnd)), "{lost:?}");
}

#[test]
fn a_transaction_has_the_answers_to_its_own_messages() {
    let answers = [error(0, libc::EPERM, b""), error(1, libc::EBUSY, b""), error(3, 0, b"")];
    let late = [error(2, libc::ENOENT, b""), error(4, libc::EINVAL, b"")].concat();
    let mut socket = answering([Ok(answers.concat()), errno(libc::EINTR), Ok(late)]);
    let answers = socket.transact(b"messages 1 to 3", 4).unwrap();
    let answers_of = |answer: &Answer| (answer.sequence, answer.errno);
    let found: Vec<_> = answers.answers.iter().map(answers_of).collect();
    assert_eq!(found, [(1, libc::EBUSY), (3, 0), (2, libc::ENOENT)]);
    assert!(!answers.overflow);
    assert_eq!(socket.next_sequence(), 4);
}

#[test]
fn numbers_of_a_transaction_may_begin_again_at_zero() {
    let mut socket = answering([Ok([error(u32::MAX, 0, b""), error(1, 0, b"")].concat())]);
    socket.next_sequence = u32::MAX;
    let answers = socket.transact(b"two messages", 1).unwrap();
    assert_eq!(answers.answers.len(), 1);
}

#[test]
fn a_transaction_goes_on_after_answers_were_lost() {
    let mut socket = answering([errno(libc::ENOBUFS), Ok(error(1, libc::EBUSY, b""))]);
    let answers = socket.transact(b"a message", 2).unwrap();
    assert!(answers.overflow);
    assert_eq!(answers.answers.len(), 1);
}

/// The attributes of an extended acknowledgement.
fn explanation() -> Vec<u8> {
    let mut attributes = Writer::default();
    attributes.string(1, "no such thing");
    attributes.attribute(2, &28_u32.to_ne_bytes());
    attributes.finish().unwrap()
}

#[test]
fn an_error_says_why_and_where() {
    let header = &request()[..HEADER];
    let code = (-libc::ENOENT).to_ne_bytes();
    let whole = [&code, &*request(), &explanation()].concat();
    let capped = [&code, header, &explanation()].concat();
    let at_the_end = [&code, &*explanation()].concat();
    for (message_type, flags, payload) in [
        (NLMSG_ERROR, NLM_F_ACK_TLVS, whole),
        (NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, capped),
        (NLMSG_DONE, NLM_F_ACK_TLVS | NLM_F_MULTI, at_the_end),
    ] {
        let (_, dumped) = dump(&mut answering([Ok(message(message_type, flags, 1, &payload))]));
        let Err(Error::Kernel(answer)) = dumped else { panic!("{dumped:?}") };
        assert_eq!((answer.errno, answer.offset), (libc::ENOENT, Some(28)));
        assert_eq!(answer.to_string(), "No such file or directory (os error 2): no such thing");
    }
}

#[test]
fn an_error_without_its_attributes_is_an_errno() {
    for payload in [&(-libc::ENOENT).to_ne_bytes()[..], &[]] {
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, 1, payload);
        let answer = Messages::of(&bytes).next().unwrap().answer().unwrap();
        let errno = if payload.is_empty() { 0 } else { libc::ENOENT };
        assert_eq!((answer.errno, &*answer.message, answer.offset), (errno, "", None));
    }
}

#[test]
fn an_attempt_that_gives_something_is_the_last() {
    let mut attempts = 0;
    let result: Result<_, ()> = retry(5, || {
        attempts += 1;
        Ok((attempts == 3).then_some("it"))
    });
    assert_eq!((result, attempts), (Ok(Some("it")), 3));
}

#[test]
fn attempts_end_with_the_last_one_or_an_error() {
    let mut attempts = 0;
    let mut count = |result: Result<Option<()>, &'static str>| {
        attempts = 0;
        let result = retry(5, || {
            attempts += 1;
            result
        });
        (result, attempts)
    };
    assert_eq!(count(Ok(None)), (Ok(None), 5));
    assert_eq!(count(Err("no")), (Err("no"), 1));
}
