//! Everything at once: restarts, kills, upgrades, tampering, foreign commits and churn, while clients connect all the
//! time. `make chaos MINUTES=60`, or as a part of the tests for some seconds.
//!
//! Half of the time the table is owned, where the kernel can: then no connection may fail. The other half it is shared:
//! then only those may fail that began while somebody had just taken the table away. Next to none may lose its first
//! packet. What fails just when the test itself exchanges the table for that of a first release is not held against the
//! proxy. In the end the table is what a fresh start writes, and the process has not grown.
//!
//! `CHAOS_SECONDS` is the time in all, `CHAOS_SEED` the number of a run to be repeated.

mod actions;
mod clients;

use actions::{Chaos, Variant};
use clients::{Clients, Loss};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use test_support::lab::{Lab, has_nft};

/// After somebody took the table away it is back after this long, on a busy machine.
const AWAY: Duration = Duration::from_millis(500);

/// A connection that has begun sends its first packet within this long.
const JUST_BEFORE: Duration = Duration::from_millis(50);

/// Of so many connections one more may lose its first packet and come late for it: ports are used again within seconds
/// here, also by one client for the address of another behind masquerading, and TCP takes some of these for old ones.
const LATE: usize = 40_000;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(24));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = number("CHAOS_SEED").unwrap_or(now.as_secs());
    if !has_nft() {
        return ExitCode::SUCCESS;
    }
    println!(
        "seed {seed}, {} s; the API server is no part of it, Services come from files",
        time.as_secs()
    );
    let mut variants = vec![Variant::Shared];
    if actions::can_own() {
        variants.insert(0, Variant::Owned);
    } else {
        println!("this kernel has no owners of tables: only the other half");
    }
    let each = time / variants.len() as u32;
    let good = variants.into_iter().filter(|variant| !run(*variant, seed, each)).count() == 0;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one half; whether all was well.
fn run(variant: Variant, seed: u64, time: Duration) -> bool {
    let builder = Lab::builder().pod("a").pod("b").remote_pod("c").outside("client");
    let Some(lab) = builder.build() else { return true };
    let mut chaos = Chaos::begin(&lab, variant, seed);
    let before = chaos.resources();
    let clients = Clients::during(&lab, || {
        let end = Instant::now() + time;
        while Instant::now() < end {
            chaos.act();
        }
        chaos.calm();
    });
    let after = chaos.resources();
    let allowed = |loss: &&Loss| {
        let is_away = |at: &Instant| loss.began(*at - JUST_BEFORE, *at + AWAY);
        (variant == Variant::Shared && chaos.away.iter().any(is_away))
            || chaos.exchanged.iter().any(|(from, to)| loss.began(*from - JUST_BEFORE, *to))
    };
    let (excused, losses): (Vec<&Loss>, Vec<&Loss>) = clients.losses.iter().partition(allowed);
    println!(
        "\n{variant:?}: {} connections, {} lost while the table was away or exchanged, {} others lost",
        clients.answered,
        excused.len(),
        losses.len()
    );
    for (what, times) in &chaos.done {
        println!("  {times:>6} x {what}");
    }
    println!("  before: {before}\n  after:  {after}");
    for loss in losses.iter().take(20) {
        let took = loss.took.as_millis();
        println!("  lost: {} (began {}, took {took} ms)", loss.what, chaos.nearest(loss));
    }
    let mut complaints = chaos.complaints();
    let late = losses.iter().filter(|loss| loss.is_late).count();
    let lost = losses.len() - late;
    if lost > 0 {
        complaints.push(format!("{lost} connections were lost"));
    }
    if late > 1 + clients.answered / LATE {
        complaints.push(format!("{late} connections lost their first packet"));
    }
    complaints.extend(after.complaints(&before));
    for complaint in &complaints {
        println!("  WRONG: {complaint}");
    }
    complaints.is_empty()
}
