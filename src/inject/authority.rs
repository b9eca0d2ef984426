//! Authority: the injector's own certificate authority, and the certificate that it signs. What is due when, and what is
//! made of what there was.
//!
//! A new authority is signed by the one before it as well, and that signature is shown with the certificate: so who
//! trusts only the old one trusts the new certificate too, and nobody has to hear of the change in time. Pure: is given
//! the time, and knows neither Kubernetes nor files.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::inject::certificates::{Pair, Unusable, validity};
use crate::secret::Secret;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How long a certificate is valid, if its authority is.
const LEAF_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());
/// What is made is valid from this long before: clocks differ.
const BEFORE: Duration = Duration::from_secs(60 * 60);

/// An authority, its certificate, and what is needed of the authority before: all that the Secret holds.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The authority's certificate, in PEM.
    pub(super) authority: String,
    pub(super) authority_key: Secret,
    /// The certificate of the authority before, for those whose certificate it signed.
    pub(super) previous: Option<String>,
    /// The authority's key, signed by the authority before.
    pub(super) cross: Option<String>,
    /// What is shown: the certificate, then `cross`.
    pub(super) chain: String,
    pub(super) key: Secret,
}

/// What has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Nothing,
    /// The certificate.
    Leaf,
    /// The authority, and so the certificate.
    Authority,
}

/// Something could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate could not be made")]
pub(super) struct NotMade(#[from] rcgen::Error);

impl Kept {
    /// A new authority and its certificate for `names`, after `before`, if there was one.
    pub(super) fn made(names: &[String], before: Option<&Self>, now: SystemTime) -> Result<Self, NotMade> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let name = format!("weir-injector {}", humantime::format_rfc3339_seconds(now));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let authority = params.self_signed(&key)?.pem();
        let before = before.filter(|before| before.authority_validity().is_some_and(|(_, end)| end > now));
        // One whose key is lost cannot sign; whoever trusts it has to hear of the change.
        let signer = before.and_then(|before| Some((before.issuer().ok()?, before.authority_validity()?.1)));
        let cross = match signer {
            Some((issuer, end)) => {
                params.not_after = end.into();
                params.use_authority_key_identifier_extension = true;
                Some(params.signed_by(&key, &issuer)?.pem())
            }
            None => None,
        };
        let kept = Self {
            authority,
            authority_key: Secret::new(key.serialize_pem()),
            previous: before.map(|before| before.authority.clone()),
            cross,
            chain: String::new(),
            key: Secret::new(String::new()),
        };
        kept.with_leaf(names, now)
    }

    /// The same authority, and a new certificate of it.
    pub(super) fn with_leaf(self, names: &[String], now: SystemTime) -> Result<Self, NotMade> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        let common = names.last().map(String::as_str).unwrap_or_default();
        // X.520 has room for 64 characters; who is meant is said by the alternative names.
        params.distinguished_name.push(DnType::CommonName, common.chars().take(64).collect::<String>());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BEFORE).into();
        let authority_end = self.authority_validity().map_or(now, |(_, end)| end);
        params.not_after = (now + LEAF_LIFE).min(authority_end).into();
        let leaf = params.signed_by(&key, &self.issuer()?)?.pem();
        let cross = self.cross.filter(|cross| end_of(cross).is_some_and(|end| end > now));
        let previous = self.previous.filter(|previous| end_of(previous).is_some_and(|end| end > now));
        let chain = leaf + cross.as_deref().unwrap_or_default();
        Ok(Self { chain, key: Secret::new(key.serialize_pem()), cross, previous, ..self })
    }

    /// What has to be made anew at `now`, once `share` of a life is over. What cannot be read has to.
    pub(super) fn due(&self, names: &[String], share: f64, now: SystemTime) -> Due {
        let is_over = |life: Option<(SystemTime, SystemTime)>| {
            life.is_none_or(|(start, end)| {
                let life = end.duration_since(start).unwrap_or_default();
                start + life.mul_f64(share) <= now
            })
        };
        if is_over(self.authority_validity()) || self.issuer().is_err() {
            Due::Authority
        } else if is_over(first_of(&self.chain).as_ref().and_then(validity))
            || !self.is_for(names)
            || self.pair(now).is_err()
        {
            Due::Leaf
        } else {
            Due::Nothing
        }
    }

    /// What those who connect have to trust: this authority, and the one before while others may still show what it
    /// signed.
    pub(super) fn bundle(&self, now: SystemTime) -> String {
        let previous = self.previous.as_deref().filter(|it| end_of(it).is_some_and(|end| end > now));
        self.authority.clone() + previous.unwrap_or_default()
    }

    /// What is shown.
    pub(super) fn pair(&self, now: SystemTime) -> Result<Pair, Unusable> {
        Pair::read(&self.chain, &self.key, now)
    }

    fn authority_validity(&self) -> Option<(SystemTime, SystemTime)> {
        validity(&first_of(&self.authority)?)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
        let key = KeyPair::from_pem(self.authority_key.expose())?;
        let certificate = first_of(&self.authority).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(rcgen::Error::CouldNotParseKeyPair);
        }
        Issuer::from_ca_cert_der(&certificate, key)
    }

    /// Whether the certificate is this authority's, and for all of these names.
    fn is_for(&self, names: &[String]) -> bool {
        let (Some(leaf), Some(authority)) = (first_of(&self.chain), first_of(&self.authority)) else { return false };
        let (Ok((_, leaf)), Ok((_, authority))) =
            (X509Certificate::from_der(&leaf), X509Certificate::from_der(&authority))
        else {
            return false;
        };
        if leaf.issuer().as_raw() != authority.subject().as_raw() {
            return false;
        }
        let Ok(Some(alternative)) = leaf.subject_alternative_name() else { return false };
        let has = |name: &String| {
            alternative.value.general_names.iter().any(|it| matches!(it, GeneralName::DNSName(dns) if dns == name))
        };
        names.iter().all(has)
    }
}

fn first_of(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()
}

fn end_of(pem: &str) -> Option<SystemTime> {
    Some(validity(&first_of(pem)?)?.1)
}
