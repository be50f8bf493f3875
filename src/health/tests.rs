use super::*;
use crate::model::Taint;
use std::sync::LazyLock;
use std::time::SystemTime;

const PERIOD: Duration = Duration::from_secs(30);

fn health(node_required: bool) -> Health {
    let families = Family::BOTH.to_vec();
    Health::new(HealthPolicy { sync_period: PERIOD, families, node_required })
}

/// 2024-05-06T07:08:09.5Z on the wall, always the same moment.
fn start() -> Moment {
    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_714_979_289_500);
    Moment { wall, monotonic: *NOW }
}

fn node() -> Node {
    Node {
        name: "node-1".into(),
        addresses: vec![],
        zone: None,
        pod_cidrs: vec![],
        taints: vec![],
        deleting: false,
    }
}

#[test]
fn unhealthy_until_the_first_commit() {
    let health = health(false);
    assert!(!health.is_healthy(start()));
    health.queued(start());
    assert!(!health.is_healthy(start()));
    health.synced(start());
    assert!(health.is_healthy(start()));
}

#[test]
fn unhealthy_when_the_sync_thread_is_silent() {
    let health = health(false);
    health.synced(start());
    health.beat(start());
    assert!(health.is_healthy(start() + PERIOD));
    assert!(!health.is_healthy(start() + PERIOD * 2));
    assert_eq!(health.heartbeat_age(start() + PERIOD), Some(PERIOD));
    health.beat(start() + PERIOD * 2);
    assert!(health.is_healthy(start() + PERIOD * 2));
}

#[test]
fn unhealthy_when_nobody_takes_what_comes() {
    let health = health(false);
    let now = start();
    health.synced(now);
    assert_eq!(health.oldest_input_age(now), Duration::ZERO);
    health.watch_inputs(Box::new(move || Some(now.monotonic)));
    assert!(health.is_healthy(now + PERIOD));
    assert!(!health.is_healthy(now + PERIOD * 2));
    assert_eq!(health.oldest_input_age(now + PERIOD), PERIOD);
}

#[test]
fn stale_when_an_update_waits_for_twice_the_sync_period() {
    let (health, t0) = (health(false), start());
    health.synced(t0);
    health.queued(t0);
    health.queued(t0 + PERIOD); // the oldest counts
    assert!(health.is_healthy(t0 + (PERIOD * 2 - Duration::from_nanos(1))));
    assert!(!health.is_healthy(t0 + PERIOD * 2));
    health.synced(t0 + PERIOD * 3);
    assert!(health.is_healthy(t0 + PERIOD * 3));
}

#[test]
fn quiet_proxy_stays_healthy() {
    let (health, t0) = (health(false), start());
    health.synced(t0);
    assert!(health.is_healthy(t0 + Duration::from_secs(1_000_000)));
}

#[test]
fn jump_of_the_wall_clock_makes_nothing_stale() {
    let (health, t0) = (health(false), start());
    health.synced(t0);
    health.queued(t0);
    let jumped = Moment { wall: t0.wall + Duration::from_secs(1 << 30), ..t0 };
    assert!(health.is_healthy(jumped));
}

#[test]
fn node_absent_deleted_or_tainted_is_not_eligible() {
    let health = health(true);
    assert!(!health.node_eligible(), "no Node object yet");
    health.set_node(Some(&node()));
    assert!(health.node_eligible());
    let other = Taint { key: "node.kubernetes.io/not-ready".into(), effect: "NoExecute".into() };
    health.set_node(Some(&Node { taints: vec![other], ..node() }));
    assert!(health.node_eligible());
    let taint = Taint { key: TO_BE_DELETED_TAINT.into(), effect: "NoSchedule".into() };
    health.set_node(Some(&Node { taints: vec![taint], ..node() }));
    assert!(!health.node_eligible());
    health.set_node(Some(&Node { deleting: true, ..node() }));
    assert!(!health.node_eligible());
    health.set_node(Some(&node()));
    assert!(health.node_eligible());
    health.set_node(None);
    assert!(!health.node_eligible());
}

#[test]
fn node_is_eligible_without_an_object_from_manifests() {
    let health = health(false);
    assert!(health.node_eligible());
    health.set_node(Some(&Node { deleting: true, ..node() }));
    assert!(!health.node_eligible());
    health.set_node(None);
    assert!(health.node_eligible());
}

#[test]
fn node_does_not_change_the_proxys_own_health() {
    let health = health(true);
    health.synced(start());
    assert!(health.is_healthy(start()));
    assert!(health.report(start()).healthy);
}

#[test]
fn pending_task_holds_back_health() {
    let health = health(false);
    let first = health.readiness().register_task("first commit");
    let second = health.readiness().register_task("conntrack");
    health.synced(start());
    assert!(!health.is_healthy(start()));
    assert_eq!(health.report(start()).pending, ["conntrack", "first commit"]);
    drop(first);
    assert_eq!(health.report(start()).pending, ["conntrack"]);
    assert!(!health.report(start()).healthy);
    drop(second);
    assert!(health.is_healthy(start()));
}

#[test]
fn report_is_written_as_go_writes_it() {
    let (health, t0) = (health(false), start());
    let json = |at| serde_json::to_string(&health.report(at)).unwrap();
    assert_eq!(
        json(t0),
        concat!(
            r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2024-05-06T07:08:09.5Z","#,
            r#""nodeEligible":true,"healthy":false,"#,
            r#""status":{"IPv4":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false},"#,
            r#""IPv6":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}}}"#
        )
    );
    health.synced(t0);
    assert_eq!(
        json(t0 + Duration::from_millis(500)),
        concat!(
            r#"{"lastUpdated":"2024-05-06T07:08:09.5Z","currentTime":"2024-05-06T07:08:10Z","#,
            r#""nodeEligible":true,"healthy":true,"#,
            r#""status":{"IPv4":{"lastUpdated":"2024-05-06T07:08:09.5Z","healthy":true},"#,
            r#""IPv6":{"lastUpdated":"2024-05-06T07:08:09.5Z","healthy":true}}}"#
        )
    );
}
