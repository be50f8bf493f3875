//! How long another program waits for the kernel while the table is loaded.
//!
//! The kernel takes one transaction at a time in a network namespace (`commit_mutex` in
//! `net/netfilter/nf_tables_api.c`), so whoever commits meanwhile waits for the one under way. What is printed
//! is the best of a few runs, each in a namespace of its own: whatever else runs on the machine only adds.

use crate::{first_layout, ms, objects};
use kube_proxy::kernel::Nft;
use kube_proxy::kernel::nft::{Error, Kernel, OnTouch, TableInfo, Touched};
use kube_proxy::plan::layout::TABLE;
use nft_table::{
    Count, DataType, Key, Lifetime, Operation, Ownership, Set, SetData, SetFlags, Snapshot,
    Transaction, Value,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

pub const RUNS: usize = 3;

/// After a run, for the kernel to take down the namespace with all that was in it.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest waits during a sync.
struct Waits {
    /// For one small commit of another program.
    others: Duration,
    /// For one commit of ours.
    ours: Duration,
}

pub fn measure(services: u32) {
    let pause = || thread::sleep(Duration::from_millis(500));
    let idle = best(|| in_namespace(|| beside_another(pause).1));
    let load = columns(|| in_namespace(|| sync_beside_another(services)));
    let upgrade = best(|| {
        in_namespace(|| {
            first_layout::load(services);
            let mut engine = objects::engine(open(), services);
            let start = Instant::now();
            engine.sync().expect("an upgrade");
            start.elapsed()
        })
    });
    let upgrading = columns(|| {
        in_namespace(|| {
            first_layout::load(services);
            sync_beside_another(services)
        })
    });
    let restart = best(|| in_namespace(|| restart_beside_another(services)));
    let repair = best(|| in_namespace(|| repair(services)));
    println!(
        "| {services} | {} | {load} | {} | {upgrading} | {} | {} |",
        ms(idle),
        ms(upgrade),
        ms(restart),
        ms(repair)
    );
}

fn best(run: impl Fn() -> Duration) -> Duration {
    (0..RUNS).map(|_| run()).min().expect("there is a run")
}

/// Two columns: the longest waits of others, and of ours.
fn columns(run: impl Fn() -> Waits) -> String {
    let runs: Vec<Waits> = (0..RUNS).map(|_| run()).collect();
    let best = |of: fn(&Waits) -> Duration| runs.iter().map(of).min().map(ms).unwrap_or_default();
    format!("{} | {}", best(|run| run.others), best(|run| run.ours))
}

/// Runs something on a thread with a network namespace of its own.
fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: it concerns this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
            body()
        });
        thread.join().expect("a run")
    });
    thread::sleep(PAUSE);
    result
}

fn open() -> Nft {
    Nft::open().expect("an nftables socket")
}

/// The first sync of a program that has just started.
fn sync_beside_another(services: u32) -> Waits {
    let mut engine = objects::engine(Timed { nft: open(), longest: Duration::ZERO }, services);
    let ((), others) = beside_another(|| drop(engine.sync().expect("the first sync")));
    Waits { others, ours: engine.kernel_mut().longest }
}

/// How long the first sync takes on an unchanged table, while another program commits something every 100 ms.
fn restart_beside_another(services: u32) -> Duration {
    objects::engine(open(), services).sync().expect("the first load");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut nft = open();
            while !is_over.load(Ordering::Relaxed) {
                for operation in [Operation::AddTable(Ownership::Nobody), Operation::DeleteTable] {
                    let transaction = Transaction::new("other", vec![operation]);
                    nft.commit(&transaction).expect("a small commit");
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut engine = objects::engine(open(), services);
        let start = Instant::now();
        let again = engine.sync().expect("a restart");
        let took = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(again.operations, 0, "a restart on an unchanged table writes nothing");
        took
    })
}

/// How long it takes from the deletion of a table that is not owned to the table as it was.
fn repair(services: u32) -> Duration {
    let mut engine = objects::engine_of(open(), services, false);
    engine.sync().expect("the first load");
    let operations = vec![Operation::DeleteTable];
    open().commit(&Transaction::new(TABLE, operations)).expect("delete the table");
    let start = Instant::now();
    engine.touched(&Touched { table: true, ..Touched::default() });
    engine.sync().expect("a repair");
    start.elapsed()
}

/// Does something while another program commits small transactions, one after the other. The longest
/// time that one of them took.
fn beside_another<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    thread::scope(|scope| {
        let (is_there, wait) = mpsc::channel();
        let (running, ended) = mpsc::channel();
        let other = scope.spawn(move || commit_until(ended, is_there));
        wait.recv().expect("the other program has its table");
        let result = work();
        drop(running);
        (result, other.join().expect("the other program"))
    })
}

/// Adds an element to a set and deletes it, over and over.
fn commit_until(ended: Receiver<()>, is_there: Sender<()>) -> Duration {
    let set = Set {
        name: "ports".into(),
        key: vec![DataType::InetService],
        data: SetData::None,
        flags: SetFlags::default(),
        type_of: None,
        size: None,
        counter: false,
    };
    let key = Key::builder().port(80).build();
    let mut nft = open();
    let mut longest = Duration::ZERO;
    let mut commit = |operations| {
        let start = Instant::now();
        nft.commit(&Transaction::new("other", operations)).expect("a small commit");
        longest = longest.max(start.elapsed());
    };
    commit(vec![Operation::AddTable(Ownership::Nobody), Operation::AddSet(&set)]);
    is_there.send(()).expect("somebody waits");
    while ended.try_recv() == Err(TryRecvError::Empty) {
        commit(vec![Operation::AddElements { set: &set, elements: vec![(&key, &Value::Member)] }]);
        commit(vec![Operation::DeleteElements { set: &set, keys: vec![&key] }]);
    }
    longest
}

/// The kernel, with the longest time that it took for one transaction.
struct Timed {
    nft: Nft,
    longest: Duration,
}

impl Kernel for Timed {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        // Cut here as the kernel side cuts it, to time each by itself.
        for stage in transaction.stages() {
            let start = Instant::now();
            self.nft.commit(&stage)?;
            self.longest = self.longest.max(start.elapsed());
        }
        Ok(())
    }

    fn snapshot(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.nft.snapshot(table)
    }

    fn declarations(&mut self, table: &str) -> Result<Option<Snapshot>, Error> {
        self.nft.declarations(table)
    }

    fn trial(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        self.nft.trial(transaction)
    }

    fn table(&mut self, table: &str) -> Result<Option<TableInfo>, Error> {
        self.nft.table(table)
    }

    fn port(&self) -> u32 {
        self.nft.port()
    }

    fn lookup(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<Value>>, Error> {
        self.nft.lookup(table, set, keys)
    }

    fn counts(
        &mut self,
        table: &str,
        set: &Set,
        keys: &[&Key],
    ) -> Result<Vec<Option<(Value, Count)>>, Error> {
        self.nft.counts(table, set, keys)
    }

    fn has_catch_all(&mut self, table: &str, set: &Set) -> Result<bool, Error> {
        self.nft.has_catch_all(table, set)
    }

    fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value)>, Error> {
        self.nft.elements(table, set)
    }

    fn expiring(&mut self, table: &str, set: &Set) -> Result<Vec<(Key, Value, Lifetime)>, Error> {
        self.nft.expiring(table, set)
    }

    fn generation(&mut self) -> Result<u32, Error> {
        self.nft.generation()
    }

    fn watch(&mut self, table: &str, on_touch: OnTouch) -> Result<(), Error> {
        self.nft.watch(table, on_touch)
    }

    fn missed_events(&mut self) -> bool {
        self.nft.missed_events()
    }

    fn supports_ownership(&mut self) -> Result<bool, Error> {
        self.nft.supports_ownership()
    }

    fn supports_destroy(&mut self) -> Result<bool, Error> {
        self.nft.supports_destroy()
    }
}
