//! Numbers of the kernel's interface that `netlink-packet-netfilter` keeps to itself.
//!
//! Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter.h`; for user data
//! libnftnl's `include/libnftnl/udata.h` and nftables' `include/{proto,expression}.h`.

/// `NFPROTO_INET`
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`
pub const IPV4: u8 = 2;
pub const IPV6: u8 = 10;

/// Messages of the nf_tables subsystem (`enum nf_tables_msg_types`), with the subsystem's number in the
/// upper byte.
pub mod message {
    const NFTABLES: u16 = 10 << 8;
    pub const NEW_TABLE: u16 = NFTABLES;
    pub const GET_TABLE: u16 = NFTABLES | 1;
    pub const NEW_CHAIN: u16 = NFTABLES | 3;
    pub const GET_CHAIN: u16 = NFTABLES | 4;
    pub const NEW_RULE: u16 = NFTABLES | 6;
    pub const GET_RULE: u16 = NFTABLES | 7;
    pub const NEW_SET: u16 = NFTABLES | 9;
    pub const GET_SET: u16 = NFTABLES | 10;
    pub const NEW_ELEMENTS: u16 = NFTABLES | 12;
    pub const GET_ELEMENTS: u16 = NFTABLES | 13;
    pub const DELETE_ELEMENTS: u16 = NFTABLES | 14;
    pub const NEW_GENERATION: u16 = NFTABLES | 15;
    pub const GET_GENERATION: u16 = NFTABLES | 16;
    /// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
    pub const BATCH_BEGIN: u16 = 16;
    pub const BATCH_END: u16 = 17;
}

/// `NFNL_SUBSYS_NFTABLES`, which a batch is for.
pub const SUBSYSTEM: u16 = 10;
/// `NFNL_BATCH_GENID`
pub const BATCH_GENERATION: u16 = 1;
/// `NFTA_GEN_ID`
pub const GENERATION_ID: u16 = 1;
/// `NFTA_LIST_ELEM`
pub const LIST_ELEMENT: u16 = 1;

/// `NFTA_TABLE_*`, `NFT_TABLE_F_DORMANT`
pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
    pub const DORMANT: u32 = 1;
}

/// `NFTA_CHAIN_*`, `NFTA_HOOK_*`
pub mod chain {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    /// `NF_ACCEPT`
    pub const ACCEPT: u32 = 1;
}

/// `NFTA_RULE_*`, `NFTA_EXPR_*`
pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const EXPRESSIONS: u16 = 4;
    pub const EXPRESSION_NAME: u16 = 1;
    pub const EXPRESSION_DATA: u16 = 2;
}

/// `NFTA_SET_*`, `NFT_SET_*`
pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const DATA_TYPE: u16 = 6;
    pub const POLICY: u16 = 8;
    pub const DESCRIPTION: u16 = 9;
    pub const TIMEOUT: u16 = 11;
    pub const USER_DATA: u16 = 13;
    /// `NFTA_SET_COUNT`, of newer kernels.
    pub const COUNT: u16 = 20;
    pub const DESCRIPTION_SIZE: u16 = 1;
    /// `NFTA_SET_FIELD_LEN`
    pub const FIELD_LEN: u16 = 1;
    /// `NFT_DATA_VERDICT`
    pub const VERDICT: u32 = 0xffff_ff00;

    pub const ANONYMOUS: u32 = 0x1;
    pub const INTERVAL: u32 = 0x4;
    pub const MAP: u32 = 0x8;
    pub const DYNAMIC: u32 = 0x10 | 0x20;
    pub const CONCATENATION: u32 = 0x80;
}

/// `NFTA_SET_ELEM_LIST_*`, `NFTA_SET_ELEM_*`, `NFTA_DATA_*`, `NFTA_VERDICT_*`
pub mod element {
    pub const TABLE: u16 = 1;
    pub const SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
    pub const SET_ID: u16 = 4;

    pub const KEY: u16 = 1;
    pub const DATA: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const USER_DATA: u16 = 6;
    pub const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_INTERVAL_END`
    pub const INTERVAL_END: u32 = 1;

    pub const VALUE: u16 = 1;
    pub const VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;

    /// Types in the user data of an element (`enum nftnl_udata_set_elem_types`).
    pub const COMMENT: u8 = 0;
    pub const USER_FLAGS: u8 = 1;
    /// nft's `SET_ELEM_F_INTERVAL_OPEN`: the range reaches to the largest value.
    pub const INTERVAL_OPEN: u32 = 1;
}

/// Verdict codes (`enum nft_verdicts`, `linux/netfilter.h`).
pub mod verdict {
    pub const DROP: u32 = 0;
    pub const ACCEPT: u32 = 1;
    pub const JUMP: u32 = -3_i32 as u32;
    pub const GOTO: u32 = -4_i32 as u32;
    pub const RETURN: u32 = -5_i32 as u32;
}

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`
pub const NETWORK_HEADER: u32 = 1;
pub const TRANSPORT_HEADER: u32 = 2;

/// `enum nft_ct_keys`
pub mod ct {
    pub const STATE: u32 = 0;
    pub const STATUS: u32 = 2;
    pub const PROTO_DST: u32 = 12;
    pub const DST_IP: u32 = 20;
    pub const DST_IP6: u32 = 22;
    /// `IP_CT_DIR_ORIGINAL`
    pub const ORIGINAL: u8 = 0;
    /// `1 << IP_CT_NEW` as `nft_ct` counts states (`NF_CT_STATE_BIT`).
    pub const STATE_NEW: u32 = 8;
    /// `IPS_DST_NAT`
    pub const STATUS_DNAT: u32 = 0x20;
}

/// `enum nft_meta_keys`
pub mod meta {
    pub const IIF: u32 = 4;
    pub const IIFNAME: u32 = 6;
    pub const OIFNAME: u32 = 7;
    pub const NFPROTO: u32 = 15;
    pub const L4PROTO: u32 = 16;
}
