//! Rules as the kernel's expressions, the same that nft 1.0.6 compiles them to.
//!
//! `nft --debug=netlink` prints what a line compiles to. What nft adds by itself is added here: the `meta
//! nfproto` match before the first look into a network header, and anonymous sets. One thing is left
//! out: the byte order conversion of `meta l4proto` for lookups in concatenated intervals, which
//! converts half a 16-bit word, that is nothing.

use super::numbers::rule::{EXPRESSION_DATA, EXPRESSION_NAME};
use super::numbers::{self, ct, meta, verdict};
use crate::{Constant, DataType, Expression, Family, Hash, Reject, Rule, Statement, Verdict};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict as VerdictCode, VerdictAttribute,
};
use std::net::IpAddr;

/// Name of an anonymous set until the kernel gives it a number (nft's `__set%d`).
pub const ANONYMOUS_SET: &str = "__set%d";

/// A rule for the kernel.
#[derive(Debug)]
pub struct Compiled {
    /// The protocol numbers of its anonymous sets, in the order of their ids.
    pub anonymous_sets: Vec<&'static [u8]>,
    pub expressions: Vec<ListAttribute<ExpressionAttribute>>,
}

/// Compiles a rule. Its anonymous sets get ids from `first_set_id` on.
pub fn compile(rule: &Rule, first_set_id: u32) -> Compiled {
    let mut compiler = Compiler {
        compiled: Compiled { anonymous_sets: Vec::new(), expressions: Vec::new() },
        first_set_id,
        family: None,
        spare: 0,
    };
    for statement in &rule.statements {
        compiler.statement(statement);
    }
    compiler.compiled
}

/// The 32-bit words of registers that a value takes.
const fn words(len: usize) -> u32 {
    len.div_ceil(4) as u32
}

/// The register that begins at a 32-bit word, by the number that the kernel dumps (`nft_dump_register`
/// in `net/netfilter/nf_tables_api.c`).
fn register(word: u32) -> Register {
    Register::from(if word.is_multiple_of(4) { 1 + word / 4 } else { 8 + word })
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn string(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

/// An expression that netlink-packet-netfilter has no type for.
fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

fn value(bytes: &[u8]) -> DataAttribute {
    DataAttribute::Value(bytes.to_vec())
}

fn numgen(to: Register, modulus: u32, kind: u32) -> Expressions {
    /// `NFTA_NG_*`
    const DREG: u16 = 1;
    const MODULUS: u16 = 2;
    const TYPE: u16 = 3;
    const OFFSET: u16 = 4;
    let attributes = vec![
        number(DREG, to.into()),
        number(MODULUS, modulus),
        number(TYPE, kind),
        number(OFFSET, 0),
    ];
    other("numgen", attributes)
}

struct Compiler {
    compiled: Compiled,
    first_set_id: u32,
    /// The family that packets have from here on.
    family: Option<Family>,
    /// The first register that nothing needs.
    spare: u32,
}

impl Compiler {
    fn push(&mut self, expressions: Expressions) {
        self.compiled.expressions.push(expressions.into());
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match { expression, constant: Constant::Network(network), negated } => {
                self.network(*expression, *network, *negated);
            }
            Statement::Match { expression, constant, negated } => {
                self.load_key(&[*expression], 0);
                self.compare(constant, *negated);
                if let (Constant::Family(family), false) = (constant, negated) {
                    self.family = Some(*family);
                }
            }
            Statement::ProtocolIn(protocols) => {
                let id = self.first_set_id + self.compiled.anonymous_sets.len() as u32;
                self.compiled.anonymous_sets.push(protocols);
                self.load(Expression::Protocol, 0);
                self.lookup(ANONYMOUS_SET, vec![Lookup::SetId(id)]);
            }
            Statement::NotOpening => {
                /// `IPPROTO_TCP`, and where its flags are; SYN, and SYN with ACK.
                const TCP: u8 = 6;
                const FLAGS: u32 = 13;
                const OPENING: u8 = 0x02;
                const ANSWER: u8 = 0x12;
                self.load(Expression::Protocol, 0);
                self.compare(&Constant::Protocol(TCP), false);
                self.push(payload(register(0), numbers::TRANSPORT_HEADER, FLAGS, 1));
                self.mask(&[ANSWER]);
                self.is_equal(&[OPENING], false);
            }
            Statement::InSet { key, set, negated } => {
                self.load_key(key, 0);
                /// `NFT_LOOKUP_F_INV`
                const INVERT: u32 = 1;
                self.lookup(set, if *negated { vec![Lookup::Flags(INVERT)] } else { vec![] });
            }
            Statement::VerdictMap { key, map } => {
                self.load_key(key, 0);
                self.lookup(map, vec![Lookup::DestinationRegister(Register::Verdict)]);
            }
            Statement::Dnat { family, key, map } => {
                self.load_key(key, 0);
                self.lookup(map, vec![Lookup::DestinationRegister(register(0))]);
                self.dnat(*family);
            }
            Statement::Update { map, key, data, timeout_seconds } => {
                self.update(map, key, data, *timeout_seconds);
            }
            Statement::RateOver { set, key, per_second, burst, timeout_seconds } => {
                let limit = rate_over(*per_second, *burst);
                self.with_expression(set, key, Some(*timeout_seconds), limit);
            }
            Statement::ConnectionsOver { set, key, most } => {
                self.with_expression(set, key, None, connections_over(*most));
            }
            Statement::Counter => self.push(other("counter", Vec::new())),
            Statement::Masquerade => {
                /// `NFTA_MASQ_FLAGS`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
                const FLAGS: u16 = 1;
                const RANDOM_FULLY: u32 = 0x10;
                self.push(other("masq", vec![number(FLAGS, RANDOM_FULLY)]));
            }
            Statement::Reject(reject) => self.reject(*reject),
            Statement::Verdict(verdict) => {
                self.push(Expressions::Immediate(vec![
                    Immediate::DestinationRegister(Register::Verdict),
                    Immediate::Data(DataAttribute::Verdict(verdict_attributes(verdict))),
                ]));
            }
        }
    }

    /// Loads a key from a 32-bit word of the registers on. Returns the word after it.
    fn load_key(&mut self, key: &[Expression], mut word: u32) -> u32 {
        for family in key.iter().filter_map(|expression| expression.network_header()) {
            self.match_family(family);
        }
        // Where nft puts what is only needed on the way: behind the key, and behind what is found.
        let in_key: u32 = key.iter().map(|expression| words(expression.len())).sum();
        self.spare = word + in_key + 4;
        for expression in key {
            self.load(*expression, word);
            word += words(expression.len());
        }
        word
    }

    /// `meta nfproto`, where the rule has not matched it yet.
    fn match_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.load(Expression::NetworkFamily, 0);
            self.compare(&Constant::Family(family), false);
            self.family = Some(family);
        }
    }

    fn load(&mut self, expression: Expression, word: u32) {
        use Expression::*;
        let to = register(word);
        let expressions = match expression {
            SourceAddress(_) | DestinationAddress(_) => {
                return self.load_network_header(expression, word, expression.len() as u32);
            }
            SourcePort => payload(to, numbers::TRANSPORT_HEADER, 0, 2),
            DestinationPort => payload(to, numbers::TRANSPORT_HEADER, 2, 2),
            Protocol => load_meta(to, meta::L4PROTO),
            NetworkFamily => load_meta(to, meta::NFPROTO),
            InputInterfaceIndex => load_meta(to, meta::IIF),
            InputInterface => load_meta(to, meta::IIFNAME),
            OutputInterface => load_meta(to, meta::OIFNAME),
            CtState => load_ct(to, ct::STATE, None),
            CtStatus => load_ct(to, ct::STATUS, None),
            CtOriginalDestination(Family::V4) => load_ct(to, ct::DST_IP, Some(ct::ORIGINAL)),
            CtOriginalDestination(Family::V6) => load_ct(to, ct::DST_IP6, Some(ct::ORIGINAL)),
            CtOriginalPort => load_ct(to, ct::PROTO_DST, Some(ct::ORIGINAL)),
            SourceAddressType | DestinationAddressType => {
                /// `NFTA_FIB_*`, `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`
                const DREG: u16 = 1;
                const RESULT: u16 = 2;
                const FLAGS: u16 = 3;
                const ADDRESS_TYPE: u32 = 3;
                const SADDR: u32 = 1;
                const DADDR: u32 = 2;
                let address = if expression == SourceAddressType { SADDR } else { DADDR };
                let attributes = vec![
                    number(FLAGS, address),
                    number(RESULT, ADDRESS_TYPE),
                    number(DREG, to.into()),
                ];
                other("fib", attributes)
            }
            Random(modulus) => numgen(to, modulus, numbers::NUMGEN_RANDOM),
            Incremental(modulus) => numgen(to, modulus, numbers::NUMGEN_INCREMENTAL),
            Hash(hash) => return self.hash(hash, to),
        };
        self.push(expressions);
    }

    fn hash(&mut self, hash: Hash, to: Register) {
        /// `NFTA_HASH_*`, `NFT_HASH_JENKINS`
        const SREG: u16 = 1;
        const DREG: u16 = 2;
        const LEN: u16 = 3;
        const MODULUS: u16 = 4;
        const SEED: u16 = 5;
        const OFFSET: u16 = 6;
        const TYPE: u16 = 7;
        const JENKINS: u32 = 0;
        let mut word = self.spare;
        for part in hash.key() {
            self.load(*part, word);
            word += words(part.len());
        }
        let mut attributes = vec![
            number(SREG, register(self.spare).into()),
            number(DREG, to.into()),
            number(LEN, 4 * (word - self.spare)),
            number(MODULUS, hash.modulus),
            number(SEED, hash.seed),
        ];
        // As nft does, which leaves out what is 0.
        attributes.extend((hash.offset > 0).then(|| number(OFFSET, hash.offset)));
        attributes.push(number(TYPE, JENKINS));
        self.push(other("hash", attributes));
    }

    /// Compares the first register with a constant.
    fn compare(&mut self, constant: &Constant, negated: bool) {
        /// `RTN_LOCAL` of `linux/rtnetlink.h`
        const LOCAL: u32 = 2;
        let (bytes, bit) = match constant {
            Constant::Family(Family::V4) => (vec![numbers::IPV4], None),
            Constant::Family(Family::V6) => (vec![numbers::IPV6], None),
            Constant::Protocol(protocol) => (vec![*protocol], None),
            Constant::TypeLocal => (LOCAL.to_ne_bytes().to_vec(), None),
            Constant::NoInterface => (vec![0; 4], None),
            Constant::StateNew => (vec![0; 4], Some(ct::STATE_NEW)),
            Constant::StatusDnat => (vec![0; 4], Some(ct::STATUS_DNAT)),
            Constant::Interface(name) => {
                let mut padded = name.as_bytes().to_vec();
                padded.resize(DataType::InterfaceName.len(), 0);
                (padded, None)
            }
            // As many bytes as there are: what follows them may be anything.
            Constant::InterfacePrefix(prefix) => (prefix.as_bytes().to_vec(), None),
            Constant::Network(network) => (octets(network.network()), None),
        };
        if let Some(bit) = bit {
            self.mask(&bit.to_ne_bytes());
        }
        // A bit that is set leaves something other than zero.
        self.is_equal(&bytes, negated == bit.is_some());
    }

    fn mask(&mut self, mask: &[u8]) {
        self.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(0)),
            Bitwise::DestinationRegister(register(0)),
            Bitwise::Length(mask.len() as u32),
            Bitwise::Mask(value(mask)),
            Bitwise::Xor(value(&vec![0; mask.len()])),
        ]));
    }

    fn is_equal(&mut self, bytes: &[u8], equal: bool) {
        self.push(Expressions::Cmp(vec![
            Cmp::SourceRegister(register(0)),
            Cmp::Op(if equal { Operator::Equal } else { Operator::NotEqual }),
            Cmp::Data(value(bytes)),
        ]));
    }

    /// Of a network whose prefix ends with a byte nft loads just those bytes; other prefixes are masked.
    fn network(&mut self, expression: Expression, network: IpNet, negated: bool) {
        let family = Family::of(&network.addr());
        self.match_family(family);
        let (address, prefix) = (octets(network.network()), usize::from(network.prefix_len()));
        let len = if prefix.is_multiple_of(8) { prefix / 8 } else { address.len() };
        self.load_network_header(expression, 0, len as u32);
        if len == address.len() && prefix < 8 * len {
            self.mask(&octets(network.netmask()));
        }
        self.is_equal(&address[..len], !negated);
    }

    fn load_network_header(&mut self, expression: Expression, word: u32, len: u32) {
        use Expression::*;
        let offset = match expression {
            SourceAddress(Family::V6) => 8,
            SourceAddress(Family::V4) => 12,
            DestinationAddress(Family::V4) => 16,
            DestinationAddress(Family::V6) => 24,
            _ => return self.load(expression, word),
        };
        self.push(payload(register(word), numbers::NETWORK_HEADER, offset, len));
    }

    fn lookup(&mut self, set: &str, more: Vec<Lookup>) {
        let mut attributes = vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(register(0))];
        attributes.extend(more);
        self.push(Expressions::Lookup(attributes));
    }

    /// Translates to the address and port that a map lookup has left in the registers.
    fn dnat(&mut self, family: Family) {
        /// `NFTA_NAT_*`, `NFT_NAT_DNAT`
        const TYPE: u16 = 1;
        const FAMILY: u16 = 2;
        const REG_ADDR_MIN: u16 = 3;
        const REG_PROTO_MIN: u16 = 5;
        const DNAT: u32 = 1;
        let (protocol_family, address_len) = match family {
            Family::V4 => (numbers::IPV4, 4),
            Family::V6 => (numbers::IPV6, 16),
        };
        let attributes = vec![
            number(TYPE, DNAT),
            number(FAMILY, protocol_family.into()),
            number(REG_ADDR_MIN, register(0).into()),
            number(REG_PROTO_MIN, register(words(address_len)).into()),
        ];
        self.push(other("nat", attributes));
    }

    /// The key goes to the first registers, the data to the next 128-bit register.
    fn update(&mut self, map: &str, key: &[Expression], data: &[Expression], seconds: u64) {
        use dynset::{OP, SET_NAME, SREG_DATA, SREG_KEY, UPDATE};
        let data_word = self.load_key(key, 0).next_multiple_of(4);
        self.load_key(data, data_word);
        let attributes = vec![
            string(SET_NAME, map),
            number(OP, UPDATE),
            number(SREG_KEY, register(0).into()),
            number(SREG_DATA, register(data_word).into()),
            dynset::timeout(seconds),
        ];
        self.push(other("dynset", attributes));
    }

    /// Adds a key with an expression of its own, which goes on counting where the key is there; the rule goes on where
    /// that expression does.
    fn with_expression(
        &mut self,
        set: &str,
        key: &[Expression],
        timeout_seconds: Option<u64>,
        expression: Vec<u8>,
    ) {
        use dynset::{ADD, EXPRESSION, OP, SET_NAME, SREG_KEY, UPDATE};
        self.load_key(key, 0);
        let operation = if timeout_seconds.is_some() { UPDATE } else { ADD };
        let mut attributes = vec![
            string(SET_NAME, set),
            number(OP, operation),
            number(SREG_KEY, register(0).into()),
        ];
        attributes.extend(timeout_seconds.map(dynset::timeout));
        attributes.push(DefaultNla::new(EXPRESSION | NLA_F_NESTED, expression));
        self.push(other("dynset", attributes));
    }

    fn reject(&mut self, reject: Reject) {
        /// `NFTA_REJECT_*`, `NFT_REJECT_*`, `NFT_REJECT_ICMPX_PORT_UNREACH`; ICMP and ICMPv6 codes of RFC
        /// 792 and 4443
        const TYPE: u16 = 1;
        const ICMP_CODE: u16 = 2;
        const ICMP_UNREACH: u32 = 0;
        const TCP_RST: u32 = 1;
        const ICMPX_UNREACH: u32 = 2;
        let (reject_type, code) = match reject {
            Reject::AnyFamily => (ICMPX_UNREACH, Some(1)),
            Reject::TcpReset => (TCP_RST, None),
            Reject::Family(Family::V4) => (ICMP_UNREACH, Some(3)),
            Reject::Family(Family::V6) => (ICMP_UNREACH, Some(4)),
        };
        if let Reject::Family(family) = reject {
            self.match_family(family);
        }
        let mut attributes = vec![number(TYPE, reject_type)];
        attributes.extend(code.map(|code| DefaultNla::new(ICMP_CODE, vec![code])));
        self.push(other("reject", attributes));
    }
}

/// `NFTA_DYNSET_*`, `NFT_DYNSET_OP_*`
mod dynset {
    use netlink_packet_core::DefaultNla;

    pub const SET_NAME: u16 = 1;
    pub const OP: u16 = 3;
    pub const SREG_KEY: u16 = 4;
    pub const SREG_DATA: u16 = 5;
    const TIMEOUT: u16 = 6;
    pub const EXPRESSION: u16 = 7;
    pub const ADD: u32 = 0;
    pub const UPDATE: u32 = 1;

    /// How long an element stays.
    pub fn timeout(seconds: u64) -> DefaultNla {
        let milliseconds = seconds.saturating_mul(1000);
        DefaultNla::new(TIMEOUT, milliseconds.to_be_bytes().to_vec())
    }
}

/// `limit rate over N/second burst M packets`
fn rate_over(per_second: u32, burst: u32) -> Vec<u8> {
    /// `NFTA_LIMIT_*`, `NFT_LIMIT_PKTS`, `NFT_LIMIT_F_INV`
    const RATE: u16 = 1;
    const UNIT: u16 = 2;
    const BURST: u16 = 3;
    const TYPE: u16 = 4;
    const FLAGS: u16 = 5;
    const PACKETS: u32 = 0;
    const OVER: u32 = 1;
    let long = |kind, value: u64| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let attributes = [
        long(RATE, per_second.into()),
        // Seconds.
        long(UNIT, 1),
        number(BURST, burst),
        number(TYPE, PACKETS),
        number(FLAGS, OVER),
    ];
    nested("limit", &attributes)
}

/// `ct count over N`
fn connections_over(most: u32) -> Vec<u8> {
    /// `NFTA_CONNLIMIT_*`, `NFT_CONNLIMIT_F_INV`
    const COUNT: u16 = 1;
    const FLAGS: u16 = 2;
    const OVER: u32 = 1;
    nested("connlimit", &[number(COUNT, most), number(FLAGS, OVER)])
}

/// An expression inside of another one.
fn nested(name: &str, attributes: &[DefaultNla]) -> Vec<u8> {
    let emit = |attributes: &[DefaultNla]| {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        bytes
    };
    let data = DefaultNla::new(EXPRESSION_DATA | NLA_F_NESTED, emit(attributes));
    emit(&[string(EXPRESSION_NAME, name), data])
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn payload(to: Register, base: u32, offset: u32, len: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(to),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
}

fn load_meta(to: Register, key: u32) -> Expressions {
    Expressions::Meta(vec![Meta::Key(MetaKey::from(key)), Meta::DestinationRegister(to)])
}

fn load_ct(to: Register, key: u32, direction: Option<u8>) -> Expressions {
    /// `NFTA_CT_*`
    const DREG: u16 = 1;
    const KEY: u16 = 2;
    const DIRECTION: u16 = 3;
    let mut attributes = vec![number(KEY, key), number(DREG, to.into())];
    attributes.extend(direction.map(|direction| DefaultNla::new(DIRECTION, vec![direction])));
    other("ct", attributes)
}

/// The kernel's code of a verdict.
pub fn verdict_code(verdict: &Verdict) -> u32 {
    match verdict {
        Verdict::Accept => verdict::ACCEPT,
        Verdict::Drop => verdict::DROP,
        Verdict::Return => verdict::RETURN,
        Verdict::Jump(_) => verdict::JUMP,
        Verdict::Goto(_) => verdict::GOTO,
    }
}

fn verdict_attributes(verdict: &Verdict) -> Vec<VerdictAttribute> {
    let mut attributes = vec![VerdictAttribute::Code(VerdictCode::from(verdict_code(verdict)))];
    attributes.extend(verdict.chain().map(|chain| VerdictAttribute::Chain(chain.to_string())));
    attributes
}
