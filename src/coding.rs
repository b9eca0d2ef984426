//! Coding: content codings (RFC 9110, section 8.4.1) undone piece by piece, so that a compressed reply can be read
//! while it is forwarded untouched.
