//! Traffic that goes on while something else changes.

use std::net::SocketAddr;
use test_support::lab::{Client, Connection, Flow, Load, Outcome, Report};

/// A client, and what it connects to in turn.
pub type Stream<'l> = (Client<'l>, Vec<SocketAddr>);

/// Connects again and again over all these streams while the scenario runs. It gets the loads, to wait for.
pub fn under_load(streams: &[Stream<'_>], scenario: &mut dyn FnMut(&[&Load])) -> Vec<Report> {
    fn next(
        streams: &[Stream<'_>],
        loads: &[&Load],
        reports: &mut Vec<Report>,
        scenario: &mut dyn FnMut(&[&Load]),
    ) {
        let Some(((client, targets), others)) = streams.split_first() else {
            return scenario(loads);
        };
        let (report, ()) = Load::on_each(client, targets, 1, |load| {
            next(others, &[loads, &[load]].concat(), reports, scenario);
        });
        reports.push(report);
    }
    let mut reports = Vec::new();
    next(streams, &[], &mut reports, scenario);
    reports.reverse();
    reports
}

/// Waits until every load has gone on.
pub fn go_on(loads: &[&Load]) {
    loads.iter().for_each(|load| load.wait_for(4));
}

/// Connections and UDP flows that have to live on.
#[derive(Default)]
pub struct Established<'l> {
    connections: Vec<(Connection<'l>, Outcome)>,
    flows: Vec<(Flow<'l>, Outcome)>,
}

impl<'l> Established<'l> {
    pub fn connect(&mut self, client: &Client<'l>, target: SocketAddr) -> &Outcome {
        let mut connection = client.connect(target);
        let answer = connection.ask();
        self.connections.push((connection, answer));
        &self.connections.last().expect("just pushed").1
    }

    pub fn flow(&mut self, client: &Client<'l>, target: SocketAddr) {
        let flow = client.flow(target);
        let answer = flow.ask();
        assert!(matches!(answer, Outcome::Reached { .. }), "{target}: {answer:?}");
        self.flows.push((flow, answer));
    }

    #[track_caller]
    pub fn live_on(&mut self) {
        for (connection, answer) in &mut self.connections {
            assert_eq!(connection.ask(), *answer, "a connection of {}", connection.local());
        }
        for (flow, answer) in &self.flows {
            assert_eq!(flow.ask(), *answer, "a flow");
        }
    }
}
