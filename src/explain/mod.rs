//! Why a connection goes where it goes, as the plan has it. Pure: `answers` asks the kernel.
//!
//! ```text
//! Question --frontend--> Service port --endpoints--> reasons
//!     |
//!     '--clients--> the table, evaluated for a packet of each --> fate, rules
//! ```
//!
//! * `report`: what is said
//! * `frontend`: whose the address is
//! * `endpoints`: each endpoint, with why it is in use or is not
//! * `clients`: what becomes of a connection, by evaluating the planned table
//! * `services`: all Services, in short
//! * `connections`: what the kernel has counted

mod clients;
mod connections;
mod endpoints;
mod frontend;
mod report;
mod services;

pub use clients::Origin;
pub use connections::{
    Connections, Endpoint as CountedEndpoint, OverLimits, Port as CountedPort, Uncounted,
    connections,
};
pub use report::{
    Claimant, Client, Endpoint, Exception, Explanation, Fate, Frontend, Kernel, Limits, Source,
};
pub use services::{Filter, Frontend as ServiceFrontend, Services, Summary, services};

use crate::model::Protocol;
use crate::plan::{Backend, Expected, Planner, over_chain};
use nft_table::{Chain, Key, Set};
use std::net::IpAddr;
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    /// The client; None: a pod of this node, the node itself, and somebody outside.
    pub client: Option<Origin>,
}

/// What the plan says, and what the kernel is to be asked.
#[derive(Debug)]
pub struct Answer {
    pub explanation: Explanation,
    /// All elements of the frontend.
    pub expected: Vec<Expected>,
    /// The chains that the packets pass.
    pub chains: Vec<Chain>,
    /// Maps that may remember a client, by the number of the client.
    pub remembered: Vec<(usize, Set, Key)>,
    /// The chain that refuses who is over a limit.
    pub over_chain: Option<Arc<str>>,
    /// Endpoints that some connection may lead to.
    pub in_use: Vec<Backend>,
}

/// Explains what the plan does with a connection. `is_local` says which addresses are this node's.
pub fn explain(
    planner: &Planner,
    is_local: &dyn Fn(IpAddr) -> bool,
    question: &Question,
) -> Answer {
    let found = frontend::find(planner, is_local, question);
    let (address, port) = (question.address, question.port);
    let mut answer = Answer {
        explanation: Explanation {
            destination: std::net::SocketAddr::new(address, port).to_string(),
            protocol: question.protocol.to_string(),
            node: planner.here().node_name.to_string(),
            ..Explanation::default()
        },
        expected: Vec::new(),
        chains: Vec::new(),
        remembered: Vec::new(),
        over_chain: None,
        in_use: Vec::new(),
    };
    match &found {
        Some(found) => {
            answer.explanation.frontend = Some(found.report(planner));
            answer.explanation.endpoints = endpoints::all(planner, found);
            answer.explanation.notes = found.notes(planner, address);
            if let Some((plan, planned)) = found.planned {
                answer.expected = planner.expected(plan, planned);
                answer.over_chain = over_chain(&found.inspected.service.name, plan);
                answer.in_use = [&plan.cluster[..], &plan.local].concat();
                if plan.protocol == Protocol::Udp {
                    answer.in_use.extend(&plan.flows_stay);
                }
            }
        }
        None => answer.explanation.notes = frontend::nobody(planner, is_local, question),
    }
    clients::follow(planner, is_local, question, found.as_ref(), &mut answer);
    answer
}
