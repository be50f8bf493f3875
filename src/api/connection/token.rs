//! The token of a ServiceAccount, in a file that the kubelet replaces.

use super::ConnectionError;
use http::HeaderValue;
use kube::config::AuthInfo;
use secrecy::ExposeSecret;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file with a token, read again for every request: there are few, and a token that has been replaced may be revoked.
pub struct TokenFile {
    path: PathBuf,
    last: Mutex<HeaderValue>,
}

impl TokenFile {
    /// Takes the token file out of credentials, and the token as well, which comes after it (client-go's
    /// `BearerTokenFile`). A token that stays is freed of white space.
    pub fn take_from(credentials: &mut AuthInfo) -> Result<Option<TokenFile>, ConnectionError> {
        let Some(path) = credentials.token_file.take().filter(|path| !path.is_empty()) else {
            if let Some(token) = &mut credentials.token {
                *token = token.expose_secret().trim().to_owned().into();
            }
            return Ok(None);
        };
        let path = PathBuf::from(path);
        let read = read(&path);
        let last = read.map_err(|source| ConnectionError::Token { path: path.clone(), source })?;
        credentials.token = None;
        Ok(Some(TokenFile { path, last: Mutex::new(last) }))
    }

    /// The value of `Authorization`. While the file cannot be read it stays what it was.
    pub fn header(&self) -> HeaderValue {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(value) = read(&self.path) {
            *last = value;
        }
        last.clone()
    }
}

/// Editors and shells end the file with a line feed, which is no part of the token.
fn read(path: &Path) -> io::Result<HeaderValue> {
    let text = fs::read_to_string(path)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds more than a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_followed_and_a_line_feed_is_no_part_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        fs::write(&path, "one\r\n").expect("written");
        let mut credentials = AuthInfo {
            token_file: Some(path.to_str().expect("UTF-8").to_owned()),
            token: Some("old".to_owned().into()),
            ..AuthInfo::default()
        };
        let file = TokenFile::take_from(&mut credentials).expect("read").expect("a file");
        assert!(credentials.token.is_none() && credentials.token_file.is_none());
        assert_eq!(file.header(), "Bearer one");
        fs::write(&path, "two").expect("written");
        assert_eq!(file.header(), "Bearer two");
        for bad in ["", "\n", "a\nb"] {
            fs::write(&path, bad).expect("written");
            assert_eq!(file.header(), "Bearer two", "{bad:?}");
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(file.header(), "Bearer two");
    }

    #[test]
    fn a_token_in_the_kubeconfig_is_trimmed() {
        let mut credentials =
            AuthInfo { token: Some("t\n".to_owned().into()), ..AuthInfo::default() };
        assert!(TokenFile::take_from(&mut credentials).expect("no file").is_none());
        assert_eq!(credentials.token.expect("a token").expose_secret(), "t");
    }
}
