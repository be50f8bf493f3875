//! A node whose rules are measured: a lab with a client pod, a pod for all endpoints, and an outside.

use crate::rules::Rules;
use crate::services::{ENDPOINTS, endpoint};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};
use nft_table::Family;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::FileExt;
use test_support::lab::{Lab, Namespace};

/// Where endpoints listen.
pub const ENDPOINT_PORT: u16 = 9000;

/// Interface index of `lo`.
const LOOPBACK: u32 = 1;
/// What the endpoints' pod drops: only packets of the measured length, so that others can be answered.
const SINK: &str = "table netdev sink {
    chain ingress {
        type filter hook ingress device eth0 priority 0
        udp length 40 drop
    }
}
";
/// Bytes in a measured packet.
pub const PAYLOAD: [u8; 32] = [b'.'; 32];

pub struct Node {
    pub rules: Rules,
    pub lab: Lab,
    pub listener: TcpListener,
    endpoints: Vec<UdpSocket>,
    /// `/proc/net/dev` of the endpoints' pod.
    counters: File,
    conntrack: Socket,
}

impl Node {
    /// None when this machine cannot make namespaces.
    pub fn new(rules: Rules) -> Option<Node> {
        let lab =
            Lab::builder().pod("pod").pod("endpoints").outside("outside").outside("api").build()?;
        let pod = lab.machine("endpoints");
        for (family, own, others) in [
            ("-4", "10.244.0.64/28", "10.128.0.0/9"),
            ("-6", "fd00:10:244::40/124", "fd00:10:128::/64"),
        ] {
            let via = if family == "-4" { lab.v4("endpoints") } else { lab.v6("endpoints") };
            for net in [own, others] {
                let words = format!("{family} route add {net} via {via} dev veth-endpoints onlink");
                let words: Vec<&str> = words.split(' ').collect();
                lab.node().output("ip", &words);
            }
        }
        let addresses = Family::BOTH
            .map(|family| (0..ENDPOINTS).map(move |number| endpoint(number, family)))
            .into_iter()
            .flatten();
        addresses.clone().for_each(|address| pod.netlink.address(LOOPBACK, address.into()));
        load(&pod.namespace, SINK);
        let (listener, endpoints, counters) = pod.namespace.run(|| {
            let listener = TcpListener::bind(("::", ENDPOINT_PORT)).expect("listen");
            let counters = File::open("/proc/thread-self/net/dev").expect("the pod's counters");
            let sockets = addresses.map(|address| {
                let socket = UdpSocket::bind((address, ENDPOINT_PORT)).expect("bind");
                socket.set_nonblocking(true).expect("non-blocking");
                socket
            });
            (listener, sockets.collect(), counters)
        });
        let conntrack = lab.node().namespace.run(|| {
            let socket = Socket::new(NETLINK_NETFILTER).expect("a netfilter socket");
            socket.connect(&NetlinkAddress::new(0, 0)).expect("connect");
            socket
        });
        Some(Node { rules, lab, listener, endpoints, counters, conntrack })
    }

    /// Lets the endpoints answer whatever has come.
    pub fn answer(&self) {
        let mut buffer = [0; 64];
        for socket in &self.endpoints {
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], client).expect("answer");
            }
        }
    }

    /// How many packets have come to the endpoints' pod so far.
    pub fn arrived(&self) -> u64 {
        let mut buffer = [0; 4096];
        let length = self.counters.read_at(&mut buffer, 0).expect("read the counters");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        let (_, numbers) = text.split_once("eth0:").expect("the pod's interface");
        // Received: bytes, packets.
        numbers.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    /// `conntrack -F`.
    pub fn forget_flows(&self) {
        // struct nlmsghdr: length, IPCTNL_MSG_CT_DELETE of NFNL_SUBSYS_CTNETLINK, NLM_F_REQUEST | NLM_F_ACK,
        // sequence, port; struct nfgenmsg: any family, version 0.
        let mut message = [0; 20];
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&0x0102_u16.to_ne_bytes());
        message[6..8].copy_from_slice(&0x0005_u16.to_ne_bytes());
        self.conntrack.send(&message, 0).expect("send to conntrack");
        let (answer, _) = self.conntrack.recv_from_full().expect("conntrack's answer");
        assert_eq!(answer[16..20], [0; 4], "conntrack does not forget");
    }
}

/// `nft -f`, with a ruleset as text.
pub fn load(namespace: &Namespace, ruleset: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), ruleset).expect("write the ruleset");
    namespace.output("nft", &["-f", file.path().to_str().expect("UTF-8")]);
}
