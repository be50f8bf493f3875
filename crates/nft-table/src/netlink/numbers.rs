//! Numbers of the kernel's interface that `netlink-packet-netfilter` keeps to itself.
//!
//! Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter.h`; for user data
//! libnftnl's `include/libnftnl/udata.h` and nftables' `include/{proto,expression}.h`.

/// `NFPROTO_INET`
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`
pub const IPV4: u8 = 2;
/// `NFPROTO_IPV6`
pub const IPV6: u8 = 10;

/// Messages of the nf_tables subsystem (`enum nf_tables_msg_types`), with the subsystem's number in the
/// upper byte.
pub mod message {
    const NFTABLES: u16 = 10 << 8;
    /// `NFT_MSG_NEWTABLE`
    pub const NEW_TABLE: u16 = NFTABLES;
    /// `NFT_MSG_DELTABLE`
    pub const DELETE_TABLE: u16 = NFTABLES | 2;
    /// `NFT_MSG_GETTABLE`
    pub const GET_TABLE: u16 = NFTABLES | 1;
    /// `NFT_MSG_NEWCHAIN`
    pub const NEW_CHAIN: u16 = NFTABLES | 3;
    /// `NFT_MSG_GETCHAIN`
    pub const GET_CHAIN: u16 = NFTABLES | 4;
    /// `NFT_MSG_NEWRULE`
    pub const NEW_RULE: u16 = NFTABLES | 6;
    /// `NFT_MSG_GETRULE`
    pub const GET_RULE: u16 = NFTABLES | 7;
    /// `NFT_MSG_NEWSET`
    pub const NEW_SET: u16 = NFTABLES | 9;
    /// `NFT_MSG_GETSET`
    pub const GET_SET: u16 = NFTABLES | 10;
    /// `NFT_MSG_NEWSETELEM`
    pub const NEW_ELEMENTS: u16 = NFTABLES | 12;
    /// `NFT_MSG_GETSETELEM`
    pub const GET_ELEMENTS: u16 = NFTABLES | 13;
    /// `NFT_MSG_DELSETELEM`
    pub const DELETE_ELEMENTS: u16 = NFTABLES | 14;
    /// `NFT_MSG_DESTROYSETELEM`
    pub const DESTROY_ELEMENTS: u16 = NFTABLES | 30;
    /// `NFT_MSG_NEWGEN`
    pub const NEW_GENERATION: u16 = NFTABLES | 15;
    /// `NFT_MSG_GETGEN`
    pub const GET_GENERATION: u16 = NFTABLES | 16;
    /// `NFNL_MSG_BATCH_BEGIN`
    pub const BATCH_BEGIN: u16 = 16;
    /// `NFNL_MSG_BATCH_END`
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

/// Attributes and flags of a table.
pub mod table {
    /// `NFTA_TABLE_NAME`
    pub const NAME: u16 = 1;
    /// `NFTA_TABLE_FLAGS`
    pub const FLAGS: u16 = 2;
    /// `NFTA_TABLE_HANDLE`
    pub const HANDLE: u16 = 4;
    /// `NFTA_TABLE_OWNER`
    pub const OWNER_PORT: u16 = 7;
    /// `NFT_TABLE_F_DORMANT`
    pub const DORMANT: u32 = 1;
    /// `NFT_TABLE_F_OWNER`
    pub const OWNER: u32 = 2;
    /// `NFT_TABLE_F_PERSIST`
    pub const PERSIST: u32 = 4;
}

/// Attributes of a chain and of the hook in it.
pub mod chain {
    /// `NFTA_CHAIN_TABLE`
    pub const TABLE: u16 = 1;
    /// `NFTA_CHAIN_NAME`
    pub const NAME: u16 = 3;
    /// `NFTA_CHAIN_HOOK`
    pub const HOOK: u16 = 4;
    /// `NFTA_CHAIN_POLICY`
    pub const POLICY: u16 = 5;
    /// `NFTA_CHAIN_TYPE`
    pub const TYPE: u16 = 7;
    /// `NFTA_HOOK_HOOKNUM`
    pub const HOOK_NUMBER: u16 = 1;
    /// `NFTA_HOOK_PRIORITY`
    pub const HOOK_PRIORITY: u16 = 2;
    /// `NF_ACCEPT`
    pub const ACCEPT: u32 = 1;
}

/// Attributes of a rule and of the expressions in it.
pub mod rule {
    /// `NFTA_RULE_TABLE`
    pub const TABLE: u16 = 1;
    /// `NFTA_RULE_CHAIN`
    pub const CHAIN: u16 = 2;
    /// `NFTA_RULE_EXPRESSIONS`
    pub const EXPRESSIONS: u16 = 4;
    /// `NFTA_EXPR_NAME`
    pub const EXPRESSION_NAME: u16 = 1;
    /// `NFTA_EXPR_DATA`
    pub const EXPRESSION_DATA: u16 = 2;
}

/// Attributes and flags of a set.
pub mod set {
    /// `NFTA_SET_TABLE`
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_NAME`
    pub const NAME: u16 = 2;
    /// `NFTA_SET_FLAGS`
    pub const FLAGS: u16 = 3;
    /// `NFTA_SET_KEY_TYPE`
    pub const KEY_TYPE: u16 = 4;
    /// `NFTA_SET_DATA_TYPE`
    pub const DATA_TYPE: u16 = 6;
    /// `NFTA_SET_POLICY`
    pub const POLICY: u16 = 8;
    /// `NFTA_SET_DESC`
    pub const DESCRIPTION: u16 = 9;
    /// `NFTA_SET_TIMEOUT`
    pub const TIMEOUT: u16 = 11;
    /// `NFTA_SET_USERDATA`
    pub const USER_DATA: u16 = 13;
    /// `NFTA_SET_EXPR`: what each element gets.
    pub const EXPRESSION: u16 = 17;
    /// `NFTA_SET_EXPRESSIONS`: the same, where there are several.
    pub const EXPRESSIONS: u16 = 18;
    /// `NFTA_SET_COUNT`, of newer kernels.
    pub const COUNT: u16 = 20;
    /// `NFTA_SET_DESC_SIZE`
    pub const DESCRIPTION_SIZE: u16 = 1;
    /// `NFTA_SET_FIELD_LEN`
    pub const FIELD_LEN: u16 = 1;
    /// `NFT_DATA_VERDICT`
    pub const VERDICT: u32 = 0xffff_ff00;

    /// `NFT_SET_ANONYMOUS`
    pub const ANONYMOUS: u32 = 0x1;
    /// `NFT_SET_INTERVAL`
    pub const INTERVAL: u32 = 0x4;
    /// `NFT_SET_MAP`
    pub const MAP: u32 = 0x8;
    /// `NFT_SET_TIMEOUT`
    pub const EXPIRING: u32 = 0x10;
    /// `NFT_SET_EVAL`
    pub const DYNAMIC: u32 = 0x20;
    /// `NFT_SET_CONCAT`
    pub const CONCATENATION: u32 = 0x80;
}

/// Attributes of a list of elements, of the elements in it, and of their keys and values.
pub mod element {
    /// `NFTA_SET_ELEM_LIST_TABLE`
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_ELEM_LIST_SET`
    pub const SET: u16 = 2;
    /// `NFTA_SET_ELEM_LIST_ELEMENTS`
    pub const ELEMENTS: u16 = 3;
    /// `NFTA_SET_ELEM_LIST_SET_ID`
    pub const SET_ID: u16 = 4;

    /// `NFTA_SET_ELEM_KEY`
    pub const KEY: u16 = 1;
    /// `NFTA_SET_ELEM_DATA`
    pub const DATA: u16 = 2;
    /// `NFTA_SET_ELEM_FLAGS`
    pub const FLAGS: u16 = 3;
    /// `NFTA_SET_ELEM_TIMEOUT`
    pub const TIMEOUT: u16 = 4;
    /// `NFTA_SET_ELEM_EXPIRATION`
    pub const EXPIRATION: u16 = 5;
    /// `NFTA_SET_ELEM_USERDATA`
    pub const USER_DATA: u16 = 6;
    /// `NFTA_SET_ELEM_EXPR`
    pub const EXPRESSION: u16 = 7;
    /// `NFTA_SET_ELEM_KEY_END`
    pub const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_INTERVAL_END`
    pub const INTERVAL_END: u32 = 1;
    /// `NFT_SET_ELEM_CATCHALL`
    pub const CATCH_ALL: u32 = 2;

    /// `NFTA_DATA_VALUE`
    pub const VALUE: u16 = 1;
    /// `NFTA_DATA_VERDICT`
    pub const VERDICT: u16 = 2;
    /// `NFTA_VERDICT_CODE`
    pub const VERDICT_CODE: u16 = 1;
    /// `NFTA_VERDICT_CHAIN`
    pub const VERDICT_CHAIN: u16 = 2;

    /// Types in the user data of an element (`enum nftnl_udata_set_elem_types`).
    pub const COMMENT: u8 = 0;
    /// `NFTNL_UDATA_SET_ELEM_FLAGS`
    pub const USER_FLAGS: u8 = 1;
    /// nft's `SET_ELEM_F_INTERVAL_OPEN`: the range reaches to the largest value.
    pub const INTERVAL_OPEN: u32 = 1;
}

/// Attributes of what `counter` has counted (`linux/netfilter/nf_tables.h`).
pub mod counter {
    /// Name of the expression.
    pub const NAME: &str = "counter";
    /// `NFTA_COUNTER_BYTES`
    pub const BYTES: u16 = 1;
    /// `NFTA_COUNTER_PACKETS`
    pub const PACKETS: u16 = 2;
}

/// Verdict codes (`enum nft_verdicts`, `linux/netfilter.h`).
pub mod verdict {
    /// `NF_DROP`
    pub const DROP: u32 = 0;
    /// `NF_ACCEPT`
    pub const ACCEPT: u32 = 1;
    /// `NFT_JUMP`
    pub const JUMP: u32 = -3_i32 as u32;
    /// `NFT_GOTO`
    pub const GOTO: u32 = -4_i32 as u32;
    /// `NFT_RETURN`
    pub const RETURN: u32 = -5_i32 as u32;
}

/// `NFT_NG_INCREMENTAL`
pub const NUMGEN_INCREMENTAL: u32 = 0;
/// `NFT_NG_RANDOM`
pub const NUMGEN_RANDOM: u32 = 1;

/// `NFT_PAYLOAD_NETWORK_HEADER`
pub const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`
pub const TRANSPORT_HEADER: u32 = 2;

/// What `ct` expressions load (`enum nft_ct_keys`).
pub mod ct {
    /// `NFT_CT_STATE`
    pub const STATE: u32 = 0;
    /// `NFT_CT_STATUS`
    pub const STATUS: u32 = 2;
    /// `NFT_CT_PROTO_DST`
    pub const PROTO_DST: u32 = 12;
    /// `NFT_CT_DST_IP`
    pub const DST_IP: u32 = 20;
    /// `NFT_CT_DST_IP6`
    pub const DST_IP6: u32 = 22;
    /// `IP_CT_DIR_ORIGINAL`
    pub const ORIGINAL: u8 = 0;
    /// `1 << IP_CT_NEW` as `nft_ct` counts states (`NF_CT_STATE_BIT`).
    pub const STATE_NEW: u32 = 8;
    /// `IPS_DST_NAT`
    pub const STATUS_DNAT: u32 = 0x20;
}

/// What `meta` expressions load (`enum nft_meta_keys`).
pub mod meta {
    /// `NFT_META_IIF`
    pub const IIF: u32 = 4;
    /// `NFT_META_IIFNAME`
    pub const IIFNAME: u32 = 6;
    /// `NFT_META_OIFNAME`
    pub const OIFNAME: u32 = 7;
    /// `NFT_META_NFPROTO`
    pub const NFPROTO: u32 = 15;
    /// `NFT_META_L4PROTO`
    pub const L4PROTO: u32 = 16;
}
