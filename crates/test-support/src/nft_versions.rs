//! The nft of other Debian releases, as `hack/nft-versions` gets them.

use crate::skip;

/// The command of a release's nft. The lines that `hack/nft-versions` prints are in `NFT_VERSIONS`, where
/// `hack/test` puts them.
pub fn of_debian(release: &str) -> Option<String> {
    let lines = std::env::var("NFT_VERSIONS").unwrap_or_default();
    let command = lines.lines().find_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let (_version, command) = rest.split_once(' ')?;
        (name == release).then(|| command.to_owned())
    });
    if command.is_none() {
        skip::skip(&format!(
            "NFT_VERSIONS names no nft of Debian {release}; see hack/nft-versions"
        ));
    }
    command
}
