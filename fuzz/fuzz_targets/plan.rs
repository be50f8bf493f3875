#![no_main]

use kube_proxy_fuzz::plan::{History, check};

libfuzzer_sys::fuzz_target!(|history: History| check(&history));
