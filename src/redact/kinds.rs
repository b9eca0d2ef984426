//! Kinds: what personal data and keys look like, and how to tell them from what only looks so.
//!
//! Each row is a pattern and a check. Patterns that are loose (numbers) have checks that are strict (check digits, lists of
//! what is in use), because prose and code are full of numbers. Where both fail, text stays: see the tests for what does.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A private key in PEM.
    PrivateKey,
    /// A key of a known vendor's.
    ApiKey,
    /// What follows `Bearer` or `Basic`, and JSON web tokens.
    Token,
    /// A password in a URL.
    Password,
    /// What is assigned to something called a key, secret, token or password.
    Secret,
    /// An e-mail address.
    Email,
    /// An international bank account number.
    Iban,
    /// The number of a payment card.
    Card,
    /// A social security number of the United States.
    Ssn,
    /// A telephone number.
    Phone,
    /// An IP address.
    Ip,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 11] = [
        Self::PrivateKey,
        Self::ApiKey,
        Self::Token,
        Self::Password,
        Self::Secret,
        Self::Email,
        Self::Iban,
        Self::Card,
        Self::Ssn,
        Self::Phone,
        Self::Ip,
    ];

    /// Whether it opens something: not what tells of a person.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::PrivateKey | Self::ApiKey | Self::Token | Self::Password | Self::Secret)
    }

    /// Its name, as it is shown and counted.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::ApiKey => "api_key",
            Self::Token => "token",
            Self::Password => "password",
            Self::Secret => "secret",
            Self::Email => "email",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::Ssn => "ssn",
            Self::Phone => "phone",
            Self::Ip => "ip",
        }
    }
}

/// A kind, what it looks like, and whether something that looks so is one.
pub(super) type Known = (Kind, &'static str, fn(&str) -> bool);

/// What each kind looks like; the first group is the thing itself, where what stands around it tells it. What is listed
/// first gives its name to what several rules find.
///
/// Words are those of ASCII (`(?-u:\b)`): what else a letter is would be asked of every text, and answered ten times as
/// slowly.
pub(super) const RULES: &[Known] = &[
    (
        Kind::PrivateKey,
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\z)",
        any,
    ),
    // OpenAI, Anthropic, OpenRouter, DeepSeek, LiteLLM and others after their example.
    (Kind::ApiKey, r"(?-u:\b)sk-[A-Za-z0-9_-]{20,}", is_no_word),
    (Kind::ApiKey, VENDORS_KEYS, any),
    (Kind::Token, r"(?i-u:\b(?:bearer|basic))[ \t]+([A-Za-z0-9._~+/=-]{12,})", has_digit),
    (Kind::Token, r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", any),
    // How long it may be is for the check to say: counted here, it would be most of what all rules take in memory.
    (Kind::Password, r"(?-u:\b)[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@]*:([^\s/@]+)@", is_no_longer_than_passwords),
    (Kind::Secret, ASSIGNED, has_digit),
    // In the query of a URL, in the words of Google, Azure, AWS and OAuth.
    (
        Kind::Secret,
        r"(?i-u:[?&](?:key|sig|signature|code|auth|jwt|x-amz-(?:signature|credential|security-token))=)([A-Za-z0-9+/_.=~%-]{12,})",
        has_digit,
    ),
    (
        Kind::Email,
        r"(?i-u:\b[a-z0-9_'+-]+(?:\.[a-z0-9_'+-]+)*(?:@|%40)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}\b)",
        any,
    ),
    (Kind::Iban, r"(?i-u:\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b)", is_iban),
    (Kind::Card, r"(?-u:\b)[2-6][0-9](?:[ -]?[0-9]){10,16}[0-9](?-u:\b)", is_card),
    (Kind::Ssn, r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)", is_ssn),
    // International, by ITU-T E.164: a plus sign and at most 15 digits.
    (Kind::Phone, r"\+[1-9](?:[ ./()-]{0,3}[0-9]){7,14}(?-u:\b)", any),
    // North American.
    (
        Kind::Phone,
        r"(?:\([2-9][0-9]{2}\) ?|(?-u:\b)(?:1[ .-])?[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4}(?-u:\b)",
        any,
    ),
    // With a national prefix, as most of the world writes it: an area, a mark, the rest; not one of many numbers.
    (
        Kind::Phone,
        r"(?:^|[^0-9\s]\s?)((?:\(0[1-9][0-9]{1,4}\) ?|(?-u:\b)0[1-9][0-9]{1,4}[ /-])[0-9]{2,4}(?:[ -]?[0-9]{2,4}){1,3})(?-u:\b)",
        is_phone_at_home,
    ),
    // Not behind a word and a slash, where versions of programs are, unless that is a path; five numbers with dots are
    // something else.
    (
        Kind::Ip,
        r"(?:^|[^0-9A-Za-z_./]|[^0-9A-Za-z_]/|/[0-9A-Za-z_.-]{1,64}/)((?:[0-9]{1,3}\.){3,}[0-9]{1,3})(?-u:\b)",
        is_ipv4,
    ),
    (
        Kind::Ip,
        r"(?:^|[^0-9A-Za-z_:.])((?i-u:(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){0,6}(?::|\b)|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}))",
        is_ipv6,
    ),
];

/// What is assigned to something that is called a secret; in JSON within a text as well.
const ASSIGNED: &str = concat!(
    r"(?i-u:api[_-]?key|access[_-]?key|account[_-]?key|secret|token|passw(?:or)?d|pwd|authorization|credential)s?",
    r#"\\?["']?\s{0,3}[:=]\s{0,3}\\?["']?([A-Za-z0-9+/_.=~-]{12,})"#
);

/// Keys that say whose they are, as their vendors' pages and the public rules of secret scanners have it. Long ones are found
/// by their beginning: what is cut for a label has 64 bytes.
const VENDORS_KEYS: &str = concat!(
    r"(?-u:\b)(?:",
    // Google; Google OAuth.
    r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}",
    // AWS: ids of access keys, keys of Bedrock.
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}|ABSK[A-Za-z0-9+/]{40,}={0,2}|bedrock-api-key-[A-Za-z0-9+/=_-]{20,}",
    // Groq, xAI, Perplexity, Hugging Face, Replicate, Fireworks, Together, NVIDIA, Cerebras, Databricks.
    r"|gsk_[A-Za-z0-9]{32,}|xai-[A-Za-z0-9]{32,}|pplx-[A-Za-z0-9]{32,}|(?:api_org|hf)_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}",
    r"|fw_[A-Za-z0-9]{20,}|tgp_v1_[A-Za-z0-9_-]{30,}|nvapi-[A-Za-z0-9_-]{30,}|csk-[a-z0-9]{32,}|dapi[0-9a-f]{32}",
    // Pinecone, LangSmith, Langfuse.
    r"|pcsk_[A-Za-z0-9_]{30,}|lsv2_(?:pt|sk)_[A-Za-z0-9_]{30,}|(?:sk|pk)-lf-[0-9a-f-]{36}",
    // GitHub, GitLab, npm, PyPI, Slack, Stripe, SendGrid, Twilio, DigitalOcean, Telegram.
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}",
    r"|pypi-AgEI[A-Za-z0-9_-]{40,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",
    r"|whsec_[A-Za-z0-9]{24,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|(?:SK|AC)[0-9a-f]{32}|do[opr]_v1_[0-9a-f]{32,}",
    r"|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
    r")",
);

const fn any(_: &str) -> bool {
    true
}

/// What is longer is no password, but what stands between a port and an at sign far behind it.
fn is_no_longer_than_passwords(text: &str) -> bool {
    text.chars().nth(256).is_none()
}

/// Names in lower case with dashes look like keys; keys have digits or capitals.
fn is_no_word(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Whether a text with this name is a key or a password for that alone. What is called `token` is as often a word.
pub(super) fn is_named_secret(name: &str, text: &str) -> bool {
    const NAMES: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
        "authorization",
        "accesstoken",
        "refreshtoken",
    ];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect();
    let is_word = (4..=512).contains(&text.len()) && !text.contains(char::is_whitespace);
    is_word && NAMES.iter().any(|secret| name.ends_with(secret))
}

/// Words have none; keys have some.
fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> {
    text.chars().filter_map(|character| character.to_digit(10))
}

/// Lengths and leading digits that are in use (Visa, Mastercard, American Express, Discover, Diners, JCB, `UnionPay`,
/// Maestro), and the check digit of ISO/IEC 7812-1, annex B.
fn is_card(text: &str) -> bool {
    let number: Vec<u32> = digits(text).collect();
    let first = |places: usize| number[..places].iter().fold(0, |all, digit| all * 10 + digit);
    let is_in_use = match number.len() {
        13 | 19 => number[0] == 4 || matches!(first(2), 50 | 56..=69),
        14 => matches!(first(2), 30 | 36 | 38 | 39),
        15 => matches!(first(2), 34 | 37),
        16 => number[0] == 4 || matches!(first(2), 35 | 50..=69) || matches!(first(4), 2_221..=2_720),
        _ => false,
    };
    let sum: u32 = number.iter().rev().enumerate().map(|(place, digit)| luhn(place, *digit)).sum();
    is_in_use && sum.is_multiple_of(10)
}

const fn luhn(place: usize, digit: u32) -> u32 {
    match (place % 2, digit * 2) {
        (0, _) => digit,
        (_, doubled) if doubled > 9 => doubled - 9,
        (_, doubled) => doubled,
    }
}

/// The check digits of ISO 13616 (ISO 7064, MOD 97-10), and a length that one of its countries has.
fn is_iban(text: &str) -> bool {
    let compact: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').map(|byte| byte.to_ascii_uppercase()).collect();
    if !(15..=33).contains(&compact.len()) {
        return false;
    }
    let rotated = compact[4..].iter().chain(&compact[..4]);
    let remainder = rotated.fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    remainder == 1
}

/// What the Social Security Administration gives out: no area 000, 666 or from 900, no group 00, no serial 0000.
fn is_ssn(text: &str) -> bool {
    let (area, group, serial) = (&text[..3], &text[4..6], &text[7..]);
    !(area == "000" || area == "666" || area >= "900" || group == "00" || serial == "0000")
}

/// Neither a date nor a short number in groups.
fn is_phone_at_home(text: &str) -> bool {
    let looks_like_a_date = matches!(text.as_bytes(), [b'0', _, b'-' | b'/', _, _, b'-' | b'/', ..]);
    (9..=13).contains(&digits(text).count()) && !looks_like_a_date
}

/// An address that names somebody: not this machine, nor none, nor a network (or a version, such as `120.0.0.0`).
fn is_ipv4(text: &str) -> bool {
    let names_somebody = |address: Ipv4Addr| !address.is_loopback() && address.octets()[1..] != [0, 0, 0];
    text.parse().is_ok_and(names_somebody)
}

/// The same; paths in code (`a::b`) look alike, so it takes a digit and three groups. Pairs of digits are of a device.
fn is_ipv6(text: &str) -> bool {
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    let is_one = text.parse().is_ok_and(|address: Ipv6Addr| !address.is_loopback() && !address.is_unspecified());
    let is_of_device = text.split(':').all(|group| group.len() == 2);
    is_one && groups >= 3 && has_digit(text) && !is_of_device
}
