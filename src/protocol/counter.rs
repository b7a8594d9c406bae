//! The counters of a node.

/// Defines [`Counter`] from one list: each counter with its meaning, which is also its help text in metrics.
macro_rules! counters {
    ($($(#[doc = $line:literal])+ $counter:ident => $name:literal,)+) => {
        /// What is counted. Each counter only grows, and begins at zero with the process.
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

            /// The name of its series among the metrics.
            #[must_use]
            #[doc(hidden)]
            #[allow(unreachable_patterns, reason = "one has a name of its own")]
            pub const fn metric(self) -> &'static str {
                match self {
                    // In seconds, the base unit.
                    Self::RepairMicros => "gossipmonger_repair_seconds_total",
                    $(Self::$counter => concat!("gossipmonger_", $name, "_total"),)+
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
    /// Exchanges completed that this node has begun.
    ExchangesInitiated => "exchanges_initiated",
    /// Exchanges completed that a peer has begun.
    ExchangesAnswered => "exchanges_answered",
    /// Exchanges that broke off.
    ExchangesFailed => "exchanges_failed",
    /// Exchanges not begun, since too many were under way.
    ExchangesShed => "exchanges_shed",
    /// Entries of other nodes received, also those that were known: the difference to the entries applied is
    /// redundant traffic.
    EntriesReceived => "entries_received",
    /// Entries of other nodes applied.
    EntriesApplied => "entries_applied",
    /// Updates refused, because they would have broken a copy.
    NewsRefused => "news_refused",
    /// Entries examined to apply updates of other nodes: the cost of the updates.
    EntriesExamined => "entries_examined",
    /// Generations of other nodes not accepted yet, because those nodes began too many in a short time.
    LivesShed => "lives_shed",
    /// Verdicts on other nodes not accepted yet, because a peer sent too many in a short time.
    VerdictsShed => "verdicts_shed",
    /// Pulls given up, because the peer was too slow.
    PullsGivenUp => "pulls_given_up",
    /// Signatures of heads verified.
    SealsVerified => "seals_verified",
    /// Microseconds that storage has spent on exchanges, which repair what did not arrive by itself.
    RepairMicros => "repair_us",
    /// Heads not verified, because a later one that arrived with them covers them.
    SealsCovered => "seals_covered",
    /// Certificates of other nodes verified, with the keys that they vouch for.
    CredentialsVetted => "credentials_vetted",
    /// Nodes that have signed two states as the same version.
    Equivocations => "equivocations",
    /// Updates about a node whose record is unknown.
    UnknownPeers => "unknown_peers",
    /// Nodes not accepted, because as many as allowed are known.
    PeersShed => "peers_shed",
    /// Times that a later generation of this node's name was proved, so that this node began a later one.
    NameConflicts => "name_conflicts",
    /// Claims about a node without the proof that they need; they changed nothing.
    ClaimsUnproved => "claims_unproved",
    /// Commits that the store failed.
    StoreFailures => "store_failures",
    /// Events dropped, because a subscriber did not read in time.
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
    /// Frames of news received unasked or on request, also those that contained nothing new.
    NewsFrames => "news_frames",
    /// Updates of single nodes in them: the difference to those that were new is redundant traffic.
    NewsReceived => "news_received",
    /// Notes of updates sent to peers, each owner counted.
    Notes => "notes",
    /// Frames of gossip received that contained nothing new.
    GossipDuplicates => "gossip_duplicates",
    /// Frames of gossip dropped, because as many as allowed waited for a connection.
    GossipShed => "gossip_shed",
    /// Frames or datagrams that could not be decoded.
    FramesMalformed => "frames_malformed",
    /// Frames that broke the order of the protocol or a limit.
    FramesRefused => "frames_refused",
    /// Frames, datagrams and exchanges dropped, because a peer sent more than it may.
    FramesThrottled => "frames_throttled",
    /// Times that a peer was disconnected for a protocol violation.
    PeersCutOff => "peers_cut_off",
    /// Connections opened to other nodes.
    ConnectionsDialed => "connections_dialed",
    /// Connections replaced, because nothing arrived over them from a live peer.
    ConnectionsRenewed => "connections_renewed",
    /// Connections accepted from other nodes.
    ConnectionsAccepted => "connections_accepted",
    /// Dials that failed.
    DialsFailed => "dials_failed",
    /// Dials to neighbours that had to wait, because this node was late.
    DialsHeld => "dials_held",
    /// Exchanges with seeds that were put off, because this node was late.
    SeedsHeld => "seeds_held",
    /// Rounds in which no neighbour with another state was repaired, because this node was late or had repaired
    /// for too long.
    RepairsHeld => "repairs_held",
    /// Exchanges with peers that lack much which were put off, because this node was late.
    OwedHeld => "owed_held",
    /// Exchanges with peers that are no neighbours which were put off, because this node was late.
    ErrandsHeld => "errands_held",
    /// Introductions that were announced and not sent, because this node was late.
    IntroductionsHeld => "introductions_held",
    /// Waves that had to wait, because this node was late.
    WavesHeld => "waves_held",
    /// Times that this node chose its neighbours anew.
    Settlements => "settlements",
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
    /// Requests that had come before to an offer that remembers them, and were answered from memory.
    CallsRecalled => "calls_recalled",
    /// Long answers given up because their caller did not read them in time.
    AnswersUnread => "answers_unread",
    /// Messages without an answer that an offered service has taken.
    CastsTaken => "casts_taken",
    /// Messages without an answer that this node has dropped: no such service or method, no room, no permission, or
    /// malformed.
    CastsRefused => "casts_refused",
    /// Calls of this node that a second node was asked as well, before the first one had answered.
    CallsHedged => "calls_hedged",
    /// Calls of this node that were tried again at another node.
    CallsRetried => "calls_retried",
    /// Messages of local proxies that were not sent to the remote service: too many calls under way, no room, or nothing
    /// that the service has.
    ProxyMessagesRefused => "proxy_messages_refused",
    /// Requests and messages for exposed actors that have ended or were never there.
    ExposedUnknown => "exposed_unknown",
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
    /// Handshakes that this node has begun by dialing.
    HandshakesBegun => "handshakes_begun",
    /// Those of them that were completed.
    HandshakesFinished => "handshakes_finished",
    /// Those of them that this node gave up, because they took too long.
    HandshakesGivenUp => "handshakes_given_up",
    /// Handshakes that others have begun and this node has taken up.
    HandshakesTaken => "handshakes_taken",
    /// Those of them that were completed.
    HandshakesAnswered => "handshakes_answered",
    /// Those of them that this node gave up, because they took too long.
    HandshakesAbandoned => "handshakes_abandoned",
    /// Actors restarted.
    ActorRestarts => "actor_restarts",
    /// Pushed updates that were known already.
    PushesRepeated => "pushes_repeated",
    /// Pushed updates that did not connect to the copy here, so that the missing part was requested.
    PushGaps => "push_gaps",
    /// Updates requested, because they were announced and did not arrive.
    Grafts => "grafts",
    /// Times that this node has refuted a verdict on itself.
    Refutations => "refutations",
    /// Times that this node missed a peer and asked the other observers of it.
    Inquiries => "inquiries",
    /// Questions and answers of other nodes not passed on, because there were too many.
    QuestionsShed => "questions_shed",
    /// Questions of others not passed on, because another node asks the same.
    QuestionsJoined => "questions_joined",
    /// Waves not passed on, because the peer that sent them had sent too many.
    WavesShed => "waves_shed",
    /// Accusations by nodes that do not observe the accused.
    AccusationsRefused => "accusations_refused",
    /// Exchanges in which a sketch showed what differs.
    ReconciledBySketch => "reconciled_by_sketch",
    /// Exchanges that began with a sketch and continued with the full digest, because too much differed.
    SketchFallbacks => "sketch_fallbacks",
    /// Sketches that contradict themselves; the full digest was requested instead.
    SketchesRefused => "sketches_refused",
    /// Times that certificate, key or roots were replaced while the node ran.
    CertificatesReplaced => "certificates_replaced",
    /// Times that a new certificate, key or roots were found and could not be used.
    CertificatesRefused => "certificates_refused",
    /// Revocations that were new and are kept.
    RevocationsTaken => "revocations_taken",
    /// Revocations sent by a peer that no trusted authority has signed.
    RevocationsRefused => "revocations_refused",
    /// Updates about a generation whose certificate is revoked.
    RevokedNewsRefused => "revoked_news_refused",
    /// Peers that restarted with less state than they had.
    PeersBehind => "peers_behind",
    /// Peers whose name seems to be used by two processes.
    PeersTwice => "peers_twice",
    /// Times that a peer reported that this node restarted with less state than it had.
    BehindTold => "behind_told",
    /// Updates about a generation that was forgotten or removed here.
    ForgottenNewsRefused => "forgotten_news_refused",
    /// Marks of forgotten generations dropped, because there were more than
    /// `replica::MARKS_MAX`.
    MarksDropped => "marks_dropped",
    /// Dead or departed peers forgotten, because another node reported their removal.
    RemovalsFollowed => "removals_followed",
    /// Client connections accepted.
    ClientsAccepted => "clients_accepted",
    /// Requests of clients.
    ClientRequests => "client_requests",
    /// Requests that their client's role does not permit.
    ClientRequestsRefused => "client_requests_refused",
    /// Certificates issued to nodes that joined by a token.
    CertificatesIssued => "certificates_issued",
    /// Certificates issued to members in place of an earlier one.
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
