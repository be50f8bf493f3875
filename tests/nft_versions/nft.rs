//! One version of nft.

use std::io::Write;
use std::process::Command;
use tempfile::NamedTempFile;

#[derive(Clone, Debug)]
pub struct Nft {
    pub command: String,
    version: String,
}

impl Nft {
    pub fn new(command: &str) -> Nft {
        let mut nft = Nft { command: command.to_owned(), version: String::new() };
        let says = nft.run("--version");
        nft.version = says.split_once('v').unwrap().1.split_whitespace().next().unwrap().to_owned();
        nft
    }

    pub fn is(&self, version: &str) -> bool {
        self.version.starts_with(version)
    }

    /// Major, minor and patch number.
    fn numbers(&self) -> Vec<u32> {
        self.version.split('.').map(|number| number.parse().unwrap()).collect()
    }

    /// Older ones refuse slot numbers in the declaration of a map.
    pub fn loads_ours(&self) -> bool {
        self.numbers() >= vec![1, 0, 6]
    }

    /// 1.0.6 runs out of registers for `dnat ip6 to ip6 saddr map` with addresses and ports.
    pub fn loads_ipv6_affinity(&self) -> bool {
        self.numbers() >= vec![1, 1]
    }

    /// 0.9.8 to 1.0.6 take what they hear of ranges in concatenations for ranges of single fields, and die of
    /// it, whoever's set it is.
    pub fn watches_concatenated_ranges(&self) -> bool {
        self.numbers() >= vec![1, 1]
    }

    /// 0.9.8 dies of what it hears of elements that count, whoever's they are.
    pub fn watches_counters(&self) -> bool {
        self.numbers() >= vec![1, 0]
    }

    /// Runs it, with words. It must not fail, and even less be ended by a signal.
    #[track_caller]
    pub fn run(&self, words: &str) -> String {
        let output = Command::new(&self.command).args(words.split(' ')).output().unwrap();
        // Old ones print bytes of their memory for prefixes of interface names in sets.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = text(&output.stderr);
        assert!(output.status.success(), "{} {words}: {}: {errors}", self.command, output.status);
        text(&output.stdout)
    }

    #[track_caller]
    pub fn load(&self, text: &str) {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.run(&format!("-f {}", file.path().display()));
    }
}
