//! How a certificate's one URI names cluster, datacenter and node.
//!
//! Our own form is `spiffe://<cluster>/<datacenter>/<node>`. A PKI with ids of another shape keeps
//! them: a template gives the places of the three, or their values if the id does not contain them.
//! The whole URI must match the template; otherwise it names no node.

use std::fmt;

use super::name::{NameError, PeerName, SCHEME, shown};
use crate::protocol::id::{ClusterId, Datacenter, NodeId};

/// The places of cluster, datacenter and node in a certificate's URI.
#[derive(Clone, PartialEq, Eq)]
pub struct Naming {
    parts: Vec<Part>,
    /// Set if the URI does not contain it.
    cluster: Option<ClusterId>,
    datacenter: Option<Datacenter>,
}

/// The text between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Cluster,
    Datacenter,
    Node,
}

/// A template of names is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity = {template:?} is refused: {why}")]
pub struct NamingError {
    template: String,
    why: String,
}

impl Naming {
    /// Reads a template such as `spiffe://{cluster}/ns/{datacenter}/sa/{node}`: each part between slashes
    /// is either one of the three, or text that must match exactly. A value that the URI does not contain
    /// is given: `cluster` for all nodes alike, `datacenter` for this node.
    ///
    /// # Errors
    /// [`NamingError`] unless each of the three is given exactly once.
    pub fn new(
        template: &str,
        cluster: Option<ClusterId>,
        datacenter: Option<Datacenter>,
    ) -> Result<Self, NamingError> {
        let refused = |why: String| NamingError { template: shown(template), why };
        let path = template
            .strip_prefix(SCHEME)
            .ok_or_else(|| refused("it does not begin with spiffe://".to_owned()))?;
        let parts: Vec<_> =
            path.split('/').map(Part::new).collect::<Result<_, _>>().map_err(refused)?;
        let said = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
        for (name, times, given) in [
            ("node", said(&Part::Node), false),
            ("cluster", said(&Part::Cluster), cluster.is_some()),
            ("datacenter", said(&Part::Datacenter), datacenter.is_some()),
        ] {
            let why = match times + usize::from(given) {
                1 => continue,
                0 if name == "node" => "it has no {node}".to_owned(),
                0 => format!("it has no {{{name}}}, and no {name} = \"...\" is given beside it"),
                _ if given => format!("it has {{{name}}}, and {name} is given beside it as well"),
                _ => format!("it has {{{name}}} more than once"),
            };
            return Err(refused(why));
        }
        Ok(Self { parts, cluster, datacenter })
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// [`NameError::BadUri`] if it does not match from end to end.
    #[doc(hidden)]
    pub fn read(&self, uri: &str) -> Result<PeerName, NameError> {
        let bad = |why: &dyn fmt::Display| NameError::BadUri {
            uri: shown(uri),
            of: "node",
            why: why.to_string(),
            wanted: self.to_string(),
        };
        let path =
            uri.strip_prefix(SCHEME).ok_or_else(|| bad(&"it does not begin with spiffe://"))?;
        // Split no further than a match can be long.
        let found: Vec<_> = path.splitn(self.parts.len() + 1, '/').collect();
        if found.len() != self.parts.len() {
            return Err(bad(&format!("it does not consist of {} parts", self.parts.len())));
        }
        if let [_, "client", _, _] = found[..] {
            return Err(bad(&"it is the name of a client"));
        }
        let (mut cluster, mut datacenter) = (self.cluster.clone(), self.datacenter.clone());
        let mut node = None;
        for (part, text) in self.parts.iter().zip(found) {
            match part {
                Part::Text(wanted) if wanted == text => {}
                Part::Text(wanted) => return Err(bad(&format!("{wanted:?} is missing in it"))),
                Part::Cluster => cluster = Some(ClusterId::new(text).map_err(|e| bad(&e))?),
                Part::Datacenter => datacenter = Some(Datacenter::new(text).map_err(|e| bad(&e))?),
                Part::Node => node = Some(NodeId::new(text).map_err(|e| bad(&e))?),
            }
        }
        let missing = || bad(&"it does not say all three");
        Ok(PeerName {
            cluster: cluster.ok_or_else(missing)?,
            datacenter: datacenter.ok_or_else(missing)?,
            node: node.ok_or_else(missing)?,
        })
    }

    /// Whether a URI itself contains the datacenter of its node.
    #[must_use]
    #[doc(hidden)]
    pub const fn tells_datacenter(&self) -> bool {
        self.datacenter.is_none()
    }
}

impl PeerName {
    /// Reads a URI of the form `spiffe://<cluster>/<datacenter>/<node>`.
    ///
    /// # Errors
    /// [`NameError::BadUri`], which names the URI and what is wrong with it.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        Naming::default().read(uri)
    }
}

impl Part {
    fn new(text: &str) -> Result<Self, String> {
        match text {
            "{cluster}" => Ok(Self::Cluster),
            "{datacenter}" => Ok(Self::Datacenter),
            "{node}" => Ok(Self::Node),
            "" | "." | ".." => Err("a part of it is empty, or a dot".to_owned()),
            text if text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) => {
                Ok(Self::Text(text.to_owned()))
            }
            text => Err(format!(
                "{text:?} is neither {{cluster}}, {{datacenter}} or {{node}} alone, nor text of \
                 letters, digits, '.', '_' and '-'"
            )),
        }
    }
}

impl Default for Naming {
    /// `spiffe://{cluster}/{datacenter}/{node}`.
    fn default() -> Self {
        let parts = vec![Part::Cluster, Part::Datacenter, Part::Node];
        Self { parts, cluster: None, datacenter: None }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(ToString::to_string).collect();
        write!(f, "{SCHEME}{}", parts.join("/"))
    }
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(text) => text,
            Self::Cluster => "{cluster}",
            Self::Datacenter => "{datacenter}",
            Self::Node => "{node}",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_a_template_that_leaves_something_open() {
        let cluster = || Some(ClusterId::new("demo").unwrap());
        let datacenter = || Some(Datacenter::new("eu").unwrap());
        for (template, cluster, datacenter, why) in [
            ("https://{cluster}/{datacenter}/{node}", None, None, "begin with spiffe://"),
            ("spiffe://{cluster}/{datacenter}", None, None, "no {node}"),
            ("spiffe://{cluster}/{node}/{node}", None, datacenter(), "{node} more than once"),
            ("spiffe://prod/{datacenter}/{node}", None, None, "no cluster = "),
            ("spiffe://{cluster}/agent/{node}", None, None, "no datacenter = "),
            ("spiffe://{cluster}/{datacenter}/{node}", cluster(), None, "as well"),
            ("spiffe://{cluster}/{datacenter}/{node}", None, datacenter(), "as well"),
            ("spiffe://{cluster}//{node}", None, datacenter(), "empty"),
            ("spiffe://{cluster}/../{node}", None, datacenter(), "dot"),
            ("spiffe://{cluster}/x-{node}", None, datacenter(), "alone"),
            ("spiffe://{cluster}/*/{node}", None, datacenter(), "letters"),
            ("spiffe://{cluster}/{node}/", None, datacenter(), "empty"),
            ("spiffe://{cluster}/{host}/{node}", None, datacenter(), "alone"),
        ] {
            let error = Naming::new(template, cluster, datacenter).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(template), "{error}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit_from_end_to_end() {
        let naming = naming("spiffe://{cluster}/ns/{datacenter}/sa/{node}");
        assert_eq!(naming.read("spiffe://demo/ns/eu/sa/a").unwrap(), name());
        for uri in [
            "spiffe://demo/eu/a",
            "spiffe://demo/ns/eu/sa/a/",
            "spiffe://demo/ns/eu/sa/a/b",
            "spiffe://demo/ns/eu/sa/",
            "spiffe://demo/ns/eu/sa",
            "spiffe://demo/NS/eu/sa/a",
            "spiffe://demo/ns/eu/xsa/a",
            "spiffe://demo//eu/sa/a",
            "Spiffe://demo/ns/eu/sa/a",
            " spiffe://demo/ns/eu/sa/a",
            "spiffe://demo/ns/eu/sa/a?x",
            "spiffe://demo/ns/eu/sa/a#x",
            "spiffe://demo/ns/eu/sa/%61",
            "spiffe://demo/ns/EU/sa/a",
            "spiffe://demo:1/ns/eu/sa/a",
            "spiffe://x@demo/ns/eu/sa/a",
            "https://demo/ns/eu/sa/a",
        ] {
            assert!(naming.read(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn takes_what_the_id_does_not_say_from_beside_it() {
        let cluster = Some(ClusterId::new("demo").unwrap());
        let datacenter = Some(Datacenter::new("eu").unwrap());
        let template = "spiffe://prod.example.org/agent/{node}";
        let naming = Naming::new(template, cluster, datacenter).unwrap();
        assert_eq!(naming.read("spiffe://prod.example.org/agent/a").unwrap(), name());
        assert!(!naming.tells_datacenter());
        // The trust domain must match exactly.
        for uri in ["spiffe://test.example.org/agent/a", "spiffe://demo/agent/a"] {
            assert!(naming.read(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn never_takes_a_client_for_a_node() {
        let naming = naming("spiffe://{cluster}/{datacenter}/admin/{node}");
        assert!(naming.read("spiffe://demo/eu/admin/a").is_ok());
        assert!(naming.read("spiffe://demo/client/admin/a").is_err());
    }

    proptest! {
        #[test]
        fn reads_what_it_was_made_for_and_panics_at_nothing(
            uri in "(spiffe://)?[a-z/.%{}\\PC]{0,60}",
            (cluster, datacenter, node) in ("[a-z0-9]{1,9}", "[a-z0-9]{1,9}", "[a-z0-9]{1,9}"),
        ) {
            let ours = Naming::default();
            prop_assert_eq!(ours.read(&uri).ok(), PeerName::from_uri(&uri).ok());
            let _ = Naming::new(&uri, None, None);
            let other = naming("spiffe://x/{node}/y/{datacenter}/{cluster}");
            let read = other.read(&format!("spiffe://x/{node}/y/{datacenter}/{cluster}")).unwrap();
            prop_assert_eq!(read.to_uri(), format!("spiffe://{cluster}/{datacenter}/{node}"));
        }
    }

    fn naming(template: &str) -> Naming {
        Naming::new(template, None, None).unwrap()
    }

    fn name() -> PeerName {
        PeerName::from_uri("spiffe://demo/eu/a").unwrap()
    }
}
