//! Attempts: how often an address has shown a token that is none. Who has done so ten times has to wait before another is
//! looked at: six seconds for each.
//!
//! Tokens that are long and random cannot be guessed; this is for those that are not, and for the log. Bounded: beyond so
//! many addresses all others count as one. Knows no token, and not the time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong tokens at once.
const AT_ONCE: u32 = 10;
/// How long it takes until another may be shown.
const EACH: Duration = Duration::from_secs(6);
/// Addresses that are told apart.
const MOST_ADDRESSES: usize = 1024;
/// Who counts as one.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Wrong tokens that were shown lately.
#[derive(Debug, Default)]
pub struct Attempts {
    /// When all that an address has shown is forgotten.
    forgotten_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Attempts {
    /// How long whoever is at this address has to wait before a token is looked at; `None` if they need not.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let known = self.forgotten_at.lock().unwrap_or_else(PoisonError::into_inner);
        let whose = network(address);
        // Who is not known while there is no more room is one of the others.
        let is_one_of_others = known.len() >= MOST_ADDRESSES && !known.contains_key(&whose);
        let forgotten_at = *known.get(if is_one_of_others { &OTHERS } else { &whose })?;
        let left = forgotten_at.saturating_duration_since(now);
        left.checked_sub(EACH * (AT_ONCE - 1)).filter(|wait| !wait.is_zero())
    }

    /// Notes that a wrong token was shown. Whether it was the last for now.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) -> bool {
        {
            let mut known = self.forgotten_at.lock().unwrap_or_else(PoisonError::into_inner);
            let mut whose = network(address);
            if known.len() >= MOST_ADDRESSES && !known.contains_key(&whose) {
                known.retain(|_, forgotten_at| *forgotten_at > now);
                if known.len() >= MOST_ADDRESSES {
                    whose = OTHERS;
                }
            }
            let forgotten_at = known.entry(whose).or_insert(now);
            *forgotten_at = (*forgotten_at).max(now) + EACH;
        }
        self.wait(address, now).is_some()
    }
}

/// What one party usually has: an address, or the last half of one of version 6; and this machine has all that lead back
/// to it.
fn network(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Ipv4Addr::LOCALHOST.into();
    }
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn who_shows_ten_wrong_tokens_waits_and_may_then_show_one_more_every_six_seconds() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let second = Duration::from_secs(1);
        for attempt in 1..10 {
            assert!(!attempts.failed(at("10.0.0.1"), now), "{attempt}");
        }
        assert_eq!(attempts.wait(at("10.0.0.1"), now), None);
        assert!(attempts.failed(at("10.0.0.1"), now));
        assert_eq!(attempts.wait(at("10.0.0.1"), now), Some(EACH));
        assert_eq!(attempts.wait(at("::ffff:10.0.0.1"), now), Some(EACH), "the same address");
        assert_eq!(attempts.wait(at("10.0.0.2"), now), None, "somebody else");
        assert_eq!(attempts.wait(at("10.0.0.1"), now + 5 * second), Some(second));
        assert_eq!(attempts.wait(at("10.0.0.1"), now + 6 * second), None);
        assert!(attempts.failed(at("10.0.0.1"), now + 6 * second), "one more, and it has to wait again");
        assert_eq!(attempts.wait(at("10.0.0.1"), now + 3600 * second), None);
    }

    #[test]
    fn a_network_of_version_6_is_one_party() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for attempt in 0..10 {
            attempts.failed(at(&format!("2001:db8::{attempt}")), now);
        }
        assert!(attempts.wait(at("2001:db8::ffff"), now).is_some());
        assert_eq!(attempts.wait(at("2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn this_machine_is_one_party_whichever_of_its_addresses_it_uses() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for attempt in 0..10 {
            attempts.failed(at(&format!("127.0.{attempt}.1")), now);
        }
        assert!(attempts.wait(at("::1"), now).is_some() && attempts.wait(at("127.9.9.9"), now).is_some());
        assert_eq!(attempts.wait(at("10.0.0.1"), now), None);
    }

    #[test]
    fn however_many_addresses_there_are_so_many_are_told_apart_and_the_others_are_one() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for address in 0..4096_u32 {
            attempts.failed(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + address)), now);
        }
        let held = || attempts.forgotten_at.lock().expect("nobody panics").len();
        assert_eq!(held(), MOST_ADDRESSES + 1, "they, and the others");
        assert!(attempts.wait(at("192.0.2.1"), now).is_some(), "one of the others");
        assert_eq!(attempts.wait(at("10.0.0.1"), now), None, "one that is known");
        let later = now + Duration::from_secs(100_000);
        assert!(!attempts.failed(at("192.0.2.1"), later));
        assert_eq!(held(), 1, "what is forgotten makes room");
    }
}
