#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kube_proxy_fuzz::config::check(bytes));
