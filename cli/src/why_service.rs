//! `why NAME/MAJOR`: the providers of a service, and why this agent's node calls each of them or not.

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, NodeId},
    service::{Explained, Verdict},
};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// One provider of a service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProviderView {
    service: Foreign,
    version: Foreign,
    node: NodeId,
    datacenter: Datacenter,
    /// Whether it gets calls of a caller that has called nothing yet.
    picked: bool,
    /// `picked`, `last_resort`, `draining`, `suspect` or `farther`.
    verdict: Foreign,
    /// The verdict as a sentence, with the node as its subject.
    sentence: Foreign,
    weight: u8,
    /// Whether there is a connection for calls to it.
    connected: bool,
    /// Why the last dial for calls failed, if the pause after it is not over.
    not_dialed: Option<Foreign>,
}

impl ProviderView {
    pub(crate) fn new(service: &str, explained: Explained) -> Self {
        let Explained { offer, verdict, connected, not_dialed, .. } = explained;
        let (label, sentence) = match verdict {
            Verdict::Picked => ("picked", "gets calls".to_owned()),
            Verdict::LastResort => (
                "last_resort",
                "gets calls although it is suspect, since no other node is ready".into(),
            ),
            Verdict::Draining => ("draining", "takes no new calls".into()),
            Verdict::Suspect => ("suspect", "is suspect, and others are not".into()),
            Verdict::Farther { nearer } => {
                ("farther", format!("is in another datacenter, and {nearer} nodes are nearer"))
            }
            _ => ("other", "is judged by a rule that this program does not know".into()),
        };
        Self {
            service: service.into(),
            version: offer.version.to_string().into(),
            node: offer.node,
            datacenter: offer.datacenter,
            picked: matches!(verdict, Verdict::Picked | Verdict::LastResort),
            verdict: label.into(),
            sentence: sentence.into(),
            weight: offer.weight,
            connected,
            not_dialed: not_dialed.map(Foreign::from),
        }
    }

    fn row(&self) -> [String; 6] {
        let connection = match (&self.not_dialed, self.connected) {
            (Some(why), _) => format!("not dialed: {}", output::cell(&why.to_string())),
            (None, true) => "open".to_owned(),
            (None, false) => "-".to_owned(),
        };
        [
            self.node.to_string(),
            self.version.to_string(),
            self.datacenter.to_string(),
            if self.picked { "yes" } else { "no" }.to_owned(),
            connection,
            self.sentence.to_string(),
        ]
    }
}

pub(crate) fn why(agent: &Target, service: String, json: bool) -> Result<(), CliError> {
    let request = Request::WhyService { service };
    let providers: Vec<ProviderView> = client::list(agent, request)?;
    if json {
        return output::json(&providers);
    }
    let rows: Vec<_> = providers.iter().map(ProviderView::row).collect();
    output::table(["NODE", "VERSION", "DATACENTER", "PICKED", "CONNECTION", "WHY"], &rows)
}
