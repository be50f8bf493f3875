//! Elements of dynamic maps are read with what is left of their lives, and written so.

use crate::scenario;
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::{Data, Key, Lifetime, Operation, Ownership, Set, Transaction, Value, text};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};
use test_support::netns::{in_namespace, sh, skip_without};

type Client = (Key, Value, Lifetime);

/// More than any machine takes for these tests.
const MINUTE: Duration = Duration::from_secs(60);

const TIMEOUT: Duration = Duration::from_secs(3 * 3600);

fn client(number: u32, expires: Duration) -> Client {
    let address = |base: u32| IpAddr::from(Ipv4Addr::from(base + number));
    let key = Key::builder().address(address(0xc612_0000)).build();
    let value = Value::Data(Data::address_port(address(0x0af4_0000), 8080));
    (key, value, Lifetime { timeout: TIMEOUT, expires })
}

fn add(nft: &mut Nft, table: &str, set: &Set, clients: &[Client]) {
    let elements = clients.iter().map(|(key, value, lifetime)| (key, value, *lifetime)).collect();
    let operations = vec![
        Operation::AddTable(Ownership::Nobody),
        Operation::AddSet(set),
        Operation::AddExpiring { set, elements },
    ];
    nft.commit(&Transaction::new(table, operations)).unwrap_or_else(|error| panic!("{error}"));
}

/// The clients in the order of their addresses.
fn read(nft: &mut Nft, table: &str, set: &Set) -> Vec<Client> {
    let mut clients = nft.expiring(table, set).unwrap();
    clients.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    clients
}

/// Asserts that clients are there, and that no more of their lives is over than a minute.
#[track_caller]
fn assert_same(there: &[Client], expected: &[Client]) {
    assert_eq!(there.len(), expected.len(), "{there:?}");
    for ((key, value, lifetime), (expected_key, expected_value, expected)) in
        there.iter().zip(expected)
    {
        assert_eq!((key, value), (expected_key, expected_value));
        assert_eq!(lifetime.timeout, expected.timeout);
        let over = expected.expires.checked_sub(lifetime.expires);
        assert!(over.is_some_and(|over| over < MINUTE), "{lifetime:?}, of {expected:?}");
    }
}

/// The map of a Service with affinity.
fn clients() -> Set {
    let mut table = scenario::table();
    scenario::fill(&mut table);
    let map = table.set_id("affinity4-shop/cart/tcp/http-cluster").unwrap();
    table.set(map).unwrap().clone()
}

#[test]
fn clients_are_carried_from_one_table_to_another() {
    in_namespace(|| {
        let (mut nft, set) = (Nft::open().unwrap(), clients());
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let expected = [client(1, hours(1)), client(2, hours(2)), client(3, hours(3))];
        add(&mut nft, "old", &set, &expected);
        let carried = read(&mut nft, "old", &set);
        assert_same(&carried, &expected);
        add(&mut nft, "new", &set, &carried);
        assert_same(&read(&mut nft, "new", &set), &carried);
    });
}

#[test]
fn a_client_is_forgotten_when_its_time_is_over() {
    in_namespace(|| {
        let (mut nft, set) = (Nft::open().unwrap(), clients());
        let stays = client(3, TIMEOUT);
        let soon = Duration::from_millis(200);
        // The first has been forgotten on the way.
        let clients = [client(1, Duration::ZERO), client(2, soon), stays.clone()];
        add(&mut nft, "t", &set, &clients);
        let start = Instant::now();
        loop {
            let there = read(&mut nft, "t", &set);
            if there.len() == 1 {
                break assert_same(&there, &[stays]);
            }
            assert!(start.elapsed() < MINUTE, "{there:?}");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(start.elapsed() >= soon / 2, "it was forgotten before its time");
    });
}

#[test]
fn nft_reads_them_and_writes_them_in_the_same_words() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let (mut nft, set) = (Nft::open().unwrap(), clients());
        let expected = [client(1, TIMEOUT - MINUTE), client(2, Duration::from_millis(5_400_005))];
        add(&mut nft, "t", &set, &expected);
        let listing = sh("nft list table inet t");
        assert!(listing.contains("198.18.0.1 timeout 3h expires 2h5"), "{listing}");
        assert!(listing.contains("198.18.0.2 timeout 3h expires 1h"), "{listing}");

        let elements: Vec<_> = expected.iter().map(|(k, v, lifetime)| (k, v, *lifetime)).collect();
        let command =
            text::operation("t", &Operation::AddExpiring { set: &set, elements: elements.clone() });
        assert!(command.contains("198.18.0.2 timeout 3h expires 1h30m5ms : 10.244.0.2 . 8080"));
        sh(&format!("nft flush map inet t {}", set.name));
        sh(&format!("nft '{command}'"));
        assert_same(&read(&mut nft, "t", &set), &expected);

        // What never expires is nobody's client.
        let for_ever = "192.0.2.7 : 10.244.0.1 . 8080";
        sh(&format!("nft 'add element inet t {} {{ {for_ever} }}'", set.name));
        assert_eq!(nft.elements("t", &set).unwrap().len(), 3);
        assert_same(&read(&mut nft, "t", &set), &expected);
    });
}

#[test]
fn clients_are_read_while_others_change_the_ruleset() {
    in_namespace(|| {
        let (mut nft, set) = (Nft::open().unwrap(), clients());
        let expected: Vec<Client> = (0..20_000).map(|number| client(number, TIMEOUT)).collect();
        add(&mut nft, "t", &set, &expected);
        thread::scope(|scope| {
            let (reading, is_over) = mpsc::channel::<()>();
            scope.spawn(move || {
                let mut nft = Nft::open().unwrap();
                while is_over.try_recv() == Err(TryRecvError::Empty) {
                    let operations =
                        vec![Operation::AddTable(Ownership::Nobody), Operation::DeleteTable];
                    nft.commit(&Transaction::new("other", operations)).unwrap();
                }
            });
            let start = Instant::now();
            let there = loop {
                let there = read(&mut nft, "t", &set);
                // While the kernel resizes its hash table, a dump lacks some of it.
                if there.len() == expected.len() || start.elapsed() > MINUTE {
                    break there;
                }
            };
            drop(reading);
            assert_same(&there, &expected);
        });
    });
}
