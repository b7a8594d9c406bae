//! The counters of a node.

/// Defines [`Counter`] from one list: each counter with its meaning, which is also its help text in metrics.
macro_rules! counters {
    ($($(#[doc = $line:literal])+ $counter:ident => $name:literal,)+) => {
        /// What is counted. Each is monotonic for the life of the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Counter {
            $($(#[doc = $line])+ $counter,)+
        }

        impl Counter {
            /// All of them, in order.
            #[doc(hidden)]
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$counter),+];

            /// Its name in metrics and in `info`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$counter => $name,)+
                }
            }

            /// What it counts, in one line.
            #[must_use]
            #[doc(hidden)]
            pub fn help(self) -> &'static str {
                // Each line of a doc comment begins with a space.
                match self {
                    $(Self::$counter => concat!($($line),+).trim_start(),)+
                }
            }
        }
    };
}

counters! {
    /// Exchanges that went through, as the one who began.
    ExchangesInitiated => "exchanges_initiated",
    /// Exchanges that went through, as the one who answered.
    ExchangesAnswered => "exchanges_answered",
    /// Exchanges that broke off.
    ExchangesFailed => "exchanges_failed",
    /// Exchanges not begun, since too many were under way.
    ExchangesShed => "exchanges_shed",
    /// Writes of others received, those known already included: what more there are of them than of
    /// those applied is redundant.
    EntriesReceived => "entries_received",
    /// Writes of others applied.
    EntriesApplied => "entries_applied",
    /// News refused: it would have broken a copy.
    NewsRefused => "news_refused",
    /// Entries looked at to apply news of others: what the news has cost.
    EntriesExamined => "entries_examined",
    /// Lives of others not taken up yet, since they began too many in a while.
    LivesShed => "lives_shed",
    /// Verdicts about others not taken over yet, since a peer told too many in a while.
    VerdictsShed => "verdicts_shed",
    /// Pulls given up, since their peer was too slow.
    PullsGivenUp => "pulls_given_up",
    /// Signatures of heads verified.
    SealsVerified => "seals_verified",
    /// Certificates of others looked at, with what they vouch for.
    CredentialsVetted => "credentials_vetted",
    /// Nodes that have signed two states as one.
    Equivocations => "equivocations",
    /// News of a node that nobody introduced.
    UnknownPeers => "unknown_peers",
    /// Nodes not taken up, since as many as allowed are known.
    PeersShed => "peers_shed",
    /// Times that a later life of this node's own name was heard of, with enough proof to follow it.
    NameConflicts => "name_conflicts",
    /// Claims that would have ended, begun or moved a node, and were not proved.
    ClaimsUnproved => "claims_unproved",
    /// Commits that the store failed.
    StoreFailures => "store_failures",
    /// Events that nobody could take in time.
    EventsLagged => "events_lagged",
    /// Heartbeats sent.
    HeartbeatsSent => "heartbeats_sent",
    /// Heartbeats received.
    HeartbeatsReceived => "heartbeats_received",
    /// Heartbeats that could not be sent.
    HeartbeatsUnsent => "heartbeats_unsent",
    /// Peers that were live and became suspect.
    PeersSuspected => "peers_suspected",
    /// Times that a datacenter became unreachable.
    DatacentersLost => "datacenters_lost",
    /// Bytes of bulk on their way to peers that pull, counted before the first one is sent.
    BulkBytesSent => "bulk_bytes_sent",
    /// Bytes of bulk pulled and applied. What a peer has sent beyond that is in flight, or was when its
    /// stream broke.
    BulkBytesTaken => "bulk_bytes_taken",
    /// Frames of gossip handed to connections.
    GossipSent => "gossip_sent",
    /// Frames of gossip received.
    GossipReceived => "gossip_received",
    /// Those of them that told nothing new, and went no further than the connection.
    GossipDuplicates => "gossip_duplicates",
    /// Frames of gossip dropped, since as many as allowed waited for a connection.
    GossipShed => "gossip_shed",
    /// Frames or datagrams that could not be decoded.
    FramesMalformed => "frames_malformed",
    /// Frames that broke the order of the protocol or a limit.
    FramesRefused => "frames_refused",
    /// Frames, datagrams and exchanges dropped, since a peer sent more than it may.
    FramesThrottled => "frames_throttled",
    /// Times that a peer was cut off since it does not keep to the protocol.
    PeersCutOff => "peers_cut_off",
    /// Connections opened to others.
    ConnectionsDialed => "connections_dialed",
    /// Connections replaced since nothing came over them from a peer that lives.
    ConnectionsRenewed => "connections_renewed",
    /// Connections accepted from others.
    ConnectionsAccepted => "connections_accepted",
    /// Dials that failed.
    DialsFailed => "dials_failed",
    /// Connections for calls opened to other nodes.
    ServiceConnectionsDialed => "service_connections_dialed",
    /// Connections for calls accepted from other nodes.
    ServiceConnectionsAccepted => "service_connections_accepted",
    /// Dials for calls that failed.
    ServiceDialsFailed => "service_dials_failed",
    /// Requests that an offered service has answered.
    CallsAnswered => "calls_answered",
    /// Requests that this node has refused.
    CallsRefused => "calls_refused",
    /// Requests whose handler panicked or came to no answer.
    CallsFailed => "calls_failed",
    /// Messages without an answer that an offered service has taken.
    CastsTaken => "casts_taken",
    /// Messages without an answer that this node has dropped: no such service or method, no room, no permission, or
    /// malformed.
    CastsRefused => "casts_refused",
    /// Calls of this node that were tried again at another node.
    CallsRetried => "calls_retried",
    /// Lists of services of other nodes that cannot be read.
    ManifestsRefused => "manifests_refused",
    /// Datagrams that belong to no connection and begin none: noise.
    DatagramsUnknown => "datagrams_unknown",
    /// Packets that the system refused to send, for example because no route leads from the socket to
    /// their address.
    PacketsUnsent => "packets_unsent",
    /// Times that the system failed to receive; the socket pauses then.
    ReceiveFailures => "receive_failures",
    /// Handshakes refused before any work was spent on them.
    HandshakesShed => "handshakes_shed",
    /// Handshakes answered with Retry.
    HandshakesRetried => "handshakes_retried",
    /// Handshakes that failed or timed out.
    HandshakesFailed => "handshakes_failed",
    /// Actors restarted.
    ActorRestarts => "actor_restarts",
    /// News told to us unasked that we had.
    PushesRepeated => "pushes_repeated",
    /// News told to us unasked that did not connect to what we had, and was asked for.
    PushGaps => "push_gaps",
    /// News asked for, since it did not come by itself.
    Grafts => "grafts",
    /// Times that this node has refuted what others thought of it.
    Refutations => "refutations",
    /// Times that this node missed a peer and asked the others who should hear it.
    Inquiries => "inquiries",
    /// Questions and answers of others not passed on, since there were too many.
    QuestionsShed => "questions_shed",
    /// Waves not passed on, since the peer that told them had told too many.
    WavesShed => "waves_shed",
    /// Accusations by nodes that do not observe the accused.
    AccusationsRefused => "accusations_refused",
    /// Exchanges in which a sketch told what differs.
    ReconciledBySketch => "reconciled_by_sketch",
    /// Exchanges that were opened by a sketch and went on with the full digest, as too much differs.
    SketchFallbacks => "sketch_fallbacks",
    /// Sketches that contradict themselves; the full digest was asked for instead.
    SketchesRefused => "sketches_refused",
    /// Times that certificate, key or roots were replaced while the node ran.
    CertificatesReplaced => "certificates_replaced",
    /// Times that new ones were found and could not be used.
    CertificatesRefused => "certificates_refused",
    /// Revocations that were new and are kept.
    RevocationsTaken => "revocations_taken",
    /// Revocations told by a peer that no trusted authority has signed.
    RevocationsRefused => "revocations_refused",
    /// News of a life that is revoked.
    RevokedNewsRefused => "revoked_news_refused",
    /// Peers that came back with less than they had.
    PeersBehind => "peers_behind",
    /// Peers that seem to run twice.
    PeersTwice => "peers_twice",
    /// Times that a peer said that this node came back with less than it had.
    BehindTold => "behind_told",
    /// News of a life that was forgotten or removed here.
    ForgottenNewsRefused => "forgotten_news_refused",
    /// Marks of forgotten lives dropped, since there were more than
    /// [`MARKS_MAX`](super::replica::MARKS_MAX).
    MarksDropped => "marks_dropped",
    /// Dead or departed peers forgotten because another node said that they were removed.
    RemovalsFollowed => "removals_followed",
    /// Clients let in.
    ClientsAccepted => "clients_accepted",
    /// Requests of clients.
    ClientRequests => "client_requests",
    /// Requests that their client's role does not permit.
    ClientRequestsRefused => "client_requests_refused",
    /// Certificates given to those who joined by a token.
    CertificatesIssued => "certificates_issued",
    /// Certificates given to members for the one they had.
    CertificatesRenewed => "certificates_renewed",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_a_help_text_of_one_line() {
        let names: BTreeSet<_> = Counter::ALL.iter().map(|counter| counter.as_str()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        for counter in Counter::ALL {
            let help = counter.help();
            assert!(
                help.ends_with('.') && !help.contains('\n') && !help.starts_with(' '),
                "{help}"
            );
        }
    }
}
