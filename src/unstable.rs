//! What only the program and the tests of this repository use. It has no promise of compatibility.

#[cfg(feature = "issuer")]
pub use crate::issuer::{
    client::host_and_port,
    connection::REQUEST_TIMEOUT,
    renewal::{lifetime, renewal_due},
    request::{Answer, PublicKey, Request},
    token::TOKEN_CHARS_MAX,
};
pub use crate::{
    foreign::{escaped, escaped_lines, is_unsafe, json_escaped},
    net::quic::{
        crypto::visit,
        peer::{peer_certificate, peer_name},
        settings::BULK_WINDOW,
    },
    node::{
        clients::limits::{
            ADMIN_PLACES, CLIENTS_MAX, CONNECTIONS_PER_CLIENT, REQUESTS_PER_CONNECTION,
        },
        config::address::{check_address, check_listen},
        own_store::check_stored,
        services::disconnect::disconnect,
    },
    pki::leaf::{AUTHORITY_VALIDITY, LEAF_VALIDITY_AUTOMATED},
    tls::{
        certificate::date,
        provider::{ADMIN_ALPN, ALPN, SERVER_NAME},
        refusal::Verdict,
        roots::Standing,
        state::Expect,
        visit::{Host, rustls_visit},
    },
};

/// The only readings of the clocks.
pub mod clock {
    pub use crate::clock::Clock;
}

/// Recent log lines.
pub mod repeats {
    pub use crate::node::repeats::Repeats;
}

/// The file of a node's configuration.
#[cfg(feature = "config-file")]
pub mod config_file {
    pub use crate::node::config::file::*;
}

/// The files of an authority's directory and of a node's.
pub mod file {
    pub use crate::pki::file::*;
}

/// The replacement of an authority by another.
pub mod rotation {
    pub use crate::pki::rotation::*;
}
