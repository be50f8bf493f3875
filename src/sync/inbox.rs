//! What the sync thread is told and has not taken yet: of every object just the latest state, so that it cannot grow
//! beyond what there is, however long the thread is busy or the kernel refuses.

use super::Input;
use crate::kernel::addresses::LocalAddresses;
use crate::kernel::nft::Touched;
use crate::model::{Change, ObjectName};
use crate::plan::{Aside, Planner};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// What the sync thread has, to look at.
pub struct View<'a> {
    pub planner: &'a Planner,
    pub addresses: &'a LocalAddresses,
    /// Connections that are not in the kernel's counts.
    pub aside: &'a Aside,
    /// What is planned is in the kernel, or was.
    pub is_running: bool,
}

/// Looks at what the sync thread has, between two turns of it: the thread waits for as long as that takes.
pub struct Question(Box<dyn FnOnce(&View<'_>) + Send>);

impl Question {
    pub fn answer(self, view: &View<'_>) {
        (self.0)(view);
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Service(ObjectName),
    EndpointSlice(ObjectName),
    Node,
    ServiceCidr(Arc<str>),
}

/// All that came since the last time.
#[derive(Debug, Default)]
pub struct Inputs {
    changes: HashMap<Key, Change>,
    /// How many changes of slices and of Services these were, each counted.
    pub slice_changes: usize,
    pub service_changes: usize,
    pub addresses: Option<LocalAddresses>,
    pub complete: bool,
    pub touched: Touched,
    /// When the first of these came.
    pub oldest: Option<Instant>,
    /// Nothing changes with these.
    pub questions: Vec<Question>,
}

impl Inputs {
    /// The latest state of each object that changed, in no order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes).into_values().collect()
    }

    fn is_empty(&self) -> bool {
        self.oldest.is_none() && self.questions.is_empty()
    }

    fn put(&mut self, input: Input) {
        self.oldest.get_or_insert_with(Instant::now);
        match input {
            Input::Changes(changes) => {
                changes.into_iter().for_each(|change| self.put_change(change))
            }
            Input::Complete => self.complete = true,
            Input::Addresses(addresses) => self.addresses = Some(addresses),
            Input::Touched(touched) => self.touched.merge(touched),
        }
    }

    fn put_change(&mut self, mut change: Change) {
        let key = match &change {
            Change::Service(name, _) => Key::Service(name.clone()),
            Change::EndpointSlice(name, _) => Key::EndpointSlice(name.clone()),
            Change::Node(_) => Key::Node,
            Change::ServiceCidr(name, _) => Key::ServiceCidr(name.clone()),
        };
        self.slice_changes += usize::from(matches!(change, Change::EndpointSlice(..)));
        self.service_changes += usize::from(matches!(change, Change::Service(..)));
        match self.changes.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) => {
                // It waits since the first of the changes that are not in the kernel.
                if let (Change::EndpointSlice(_, Some(new)), Change::EndpointSlice(_, Some(old))) =
                    (&mut change, entry.get())
                    && let Some(trigger) = old.trigger_time
                {
                    new.trigger_time = Some(new.trigger_time.map_or(trigger, |t| t.min(trigger)));
                }
                entry.insert(change);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    inputs: Inputs,
    senders: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A change is put in as a whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, input: Input) {
        self.state().inputs.put(input);
        self.arrived.notify_one();
    }
}

/// Puts things into the inbox.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// Puts things into the inbox as long as somebody else can, too: it does not keep the sync thread running.
#[derive(Clone, Debug)]
pub struct WeakSender(Weak<Shared>);

/// Asks the sync thread, without keeping it running.
#[derive(Clone, Debug)]
pub struct Asker(Weak<Shared>);

/// More questions do not wait at a time.
const QUESTIONS: usize = 8;

/// Takes things out of the inbox.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

/// What waiting for inputs came to.
#[derive(Debug)]
pub enum Waited {
    Inputs(Box<Inputs>),
    TimeOut,
    /// There is nothing, and nobody who could send anything.
    Closed,
}

/// An empty inbox and the first who can put something into it.
pub fn inbox() -> (Sender, Inbox) {
    let shared = Arc::new(Shared::default());
    shared.state().senders = 1;
    (Sender(shared.clone()), Inbox(shared))
}

impl Sender {
    pub fn send(&self, input: Input) {
        self.0.put(input);
    }

    pub fn downgrade(&self) -> WeakSender {
        WeakSender(Arc::downgrade(&self.0))
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        self.0.arrived.notify_one();
    }
}

impl WeakSender {
    pub fn send(&self, input: Input) {
        if let Some(shared) = self.0.upgrade() {
            shared.put(input);
        }
    }
}

impl Asker {
    /// Has the thread answer a question as soon as it has time. None: it has ended, or too many questions wait already.
    /// The answer does not come if the thread ends before.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Option<oneshot::Receiver<T>> {
        let shared = self.0.upgrade()?;
        let mut state = shared.state();
        if state.inputs.questions.len() >= QUESTIONS {
            return None;
        }
        let (send, answer) = oneshot::channel();
        let question = Question(Box::new(move |view| {
            // Nobody may be waiting any more.
            if !send.is_closed() {
                let _ = send.send(question(view));
            }
        }));
        state.inputs.questions.push(question);
        drop(state);
        shared.arrived.notify_one();
        Some(answer)
    }
}

impl Inbox {
    /// One who asks.
    pub fn asker(&self) -> Asker {
        Asker(Arc::downgrade(&self.0))
    }

    /// One who puts things into this inbox without keeping it open.
    pub fn sender(&self) -> WeakSender {
        WeakSender(Arc::downgrade(&self.0))
    }

    /// Takes all that is there, or waits for something until `deadline`; None: for as long as it takes.
    pub fn wait(&self, deadline: Option<Instant>) -> Waited {
        let mut state = self.0.state();
        loop {
            if !state.inputs.is_empty() {
                return Waited::Inputs(Box::new(std::mem::take(&mut state.inputs)));
            }
            if state.senders == 0 {
                return Waited::Closed;
            }
            let arrived = &self.0.arrived;
            state =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(rest) if rest.is_zero() => return Waited::TimeOut,
                    Some(rest) => {
                        arrived.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
        }
    }

    /// Another look into the same inbox, for those who watch the thread.
    pub fn watch(&self) -> InboxWatch {
        InboxWatch(self.0.clone())
    }
}

/// Sees how long inputs wait.
#[derive(Clone, Debug)]
pub struct InboxWatch(Arc<Shared>);

impl InboxWatch {
    /// When the first of the inputs came that the thread has not taken.
    pub fn oldest(&self) -> Option<Instant> {
        self.0.state().inputs.oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointSlice, Family};
    use std::time::Duration;

    fn slice(name: &str, trigger_time: Option<i64>) -> Change {
        let slice = EndpointSlice {
            name: ObjectName::new("default", name),
            service: "web".into(),
            family: Family::V4,
            ports: Vec::new(),
            endpoints: Vec::new(),
            described: Box::default(),
            trigger_time,
        };
        Change::EndpointSlice(slice.name.clone(), Some(Box::new(slice)))
    }

    fn taken(inbox: &Inbox) -> Inputs {
        match inbox.wait(Some(Instant::now())) {
            Waited::Inputs(inputs) => *inputs,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_an_object_there_is_just_the_latest_state_with_the_oldest_trigger() {
        let (sender, inbox) = inbox();
        for trigger in [Some(5), None, Some(9)] {
            sender.send(Input::Changes(vec![slice("a", trigger), slice("b", None)]));
        }
        let mut inputs = taken(&inbox);
        assert_eq!(inputs.slice_changes, 6);
        let changes = inputs.take_changes();
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!(changes.contains(&slice("a", Some(5))), "the first one is still waited for");
        assert!(changes.contains(&slice("b", None)));
        assert!(matches!(inbox.wait(Some(Instant::now())), Waited::TimeOut));
    }

    #[test]
    fn it_is_closed_when_nobody_can_send_any_more_and_all_is_taken() {
        let (sender, inbox) = inbox();
        let weak = inbox.sender();
        let other = sender.clone();
        other.send(Input::Complete);
        drop((sender, other));
        assert!(taken(&inbox).complete);
        assert!(matches!(inbox.wait(None), Waited::Closed));
        weak.send(Input::Complete);
    }

    #[test]
    fn it_says_since_when_something_waits() {
        let (sender, inbox) = inbox();
        assert_eq!(inbox.watch().oldest(), None);
        let before = Instant::now();
        sender.send(Input::Complete);
        std::thread::sleep(Duration::from_millis(2));
        sender.send(Input::Complete);
        let oldest = inbox.watch().oldest().unwrap();
        assert!(oldest >= before && oldest <= Instant::now());
        taken(&inbox);
        assert_eq!(inbox.watch().oldest(), None);
    }

    #[test]
    fn a_wait_ends_with_the_first_input() {
        let (sender, inbox) = inbox();
        let thread = std::thread::spawn(move || taken_after(&inbox));
        sender.send(Input::Complete);
        assert!(thread.join().unwrap());
    }

    fn taken_after(inbox: &Inbox) -> bool {
        matches!(inbox.wait(None), Waited::Inputs(inputs) if inputs.complete)
    }
}
