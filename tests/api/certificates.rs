//! Certificates of the shapes that clusters have.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use std::sync::atomic::{AtomicU32, Ordering};

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// What a certificate is to be like.
pub struct Shape<'a> {
    /// The common name.
    pub name: &'a str,
    /// Alternative names: addresses and host names.
    pub names: &'a [&'a str],
    pub is_authority: bool,
    /// 1 or 3.
    pub version: i32,
    pub key: PKey<Private>,
}

impl Shape<'_> {
    /// One of version 3 that is no authority.
    pub fn new<'a>(name: &'a str, names: &'a [&'a str]) -> Shape<'a> {
        Shape { name, names, is_authority: false, version: 3, key: p256() }
    }

    /// Signed by another one, or by itself.
    pub fn signed_by(self, issuer: Option<&Pair>) -> Pair {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", self.name).unwrap();
        let name = name.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(self.version - 1).unwrap();
        let serial = BigNum::from_u32(SERIAL.fetch_add(1, Ordering::Relaxed)).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        let issuer_name = issuer.map_or(&*name, |issuer| issuer.certificate.subject_name());
        builder.set_issuer_name(issuer_name).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        if self.version == 3 {
            let mut constraints = BasicConstraints::new();
            if self.is_authority {
                constraints.critical().ca();
            }
            builder.append_extension(constraints.build().unwrap()).unwrap();
            if !self.names.is_empty() {
                let mut names = SubjectAlternativeName::new();
                for name in self.names {
                    match name.parse::<std::net::IpAddr>() {
                        Ok(_) => names.ip(name),
                        Err(_) => names.dns(name),
                    };
                }
                let names = names.build(&builder.x509v3_context(None, None)).unwrap();
                builder.append_extension(names).unwrap();
            }
        }
        let signer = issuer.map_or(&self.key, |issuer| &issuer.key);
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        Pair { certificate: builder.build(), key: self.key }
    }
}

impl Pair {
    pub fn pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    pub fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}

/// An authority that has signed itself.
pub fn authority(name: &str) -> Pair {
    Shape { is_authority: true, ..Shape::new(name, &[]) }.signed_by(None)
}

pub fn p256() -> PKey<Private> {
    curve(Nid::X9_62_PRIME256V1)
}

pub fn p521() -> PKey<Private> {
    curve(Nid::SECP521R1)
}

pub fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn curve(nid: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(nid).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}
