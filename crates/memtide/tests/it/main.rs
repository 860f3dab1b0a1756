//! What the engine promises, seen from outside.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

mod basics;
mod crash;
mod model;
mod oracle;
