//! A group as the broker that coordinates it describes it, for whoever only looks: a member would make the group share its lanes out anew.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use rdkafka::bindings as native;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use super::admin::{ask_for_operations, may_read};
use super::faults::explain;
use super::member::refused;
use super::topics::ANSWER_MAX;
use super::{KafkaClient, Reader, blocking};
use crate::error::{Error, Result};

/// What is told of a group that may be looked at.
#[derive(Debug, Default)]
struct Described {
    /// Whether we may be a member; None where that is not told.
    may_read: Option<bool>,
    members: usize,
    /// How its members share out lanes, where they have agreed on it.
    strategy: Option<String>,
}

impl KafkaClient {
    /// What a person may want to know of a group before a run joins it. Fails where the group would not let it in, as far as can be seen.
    pub async fn look_at_group(&self, group: &str) -> Result<String> {
        let (shared, group) = (Arc::clone(&self.shared), group.to_owned());
        blocking(move || {
            let (reader, ours) = (&shared.reader, &shared.strategy);
            reader.faults.begin();
            match reader.describe_group(&group, ours)? {
                Some(described) => described.told(&group, ours, &reader.brokers),
                None => Ok(format!("group `{group}`: its broker does not describe groups")),
            }
        })
        .await
    }
}

impl Described {
    fn told(&self, group: &str, ours: &str, brokers: &str) -> Result<String> {
        if self.may_read == Some(false) {
            let what = format!("group `{group}` may be looked at and not be joined");
            return Err(explain(RDKafkaErrorCode::GroupAuthorizationFailed, &what, brokers));
        }
        let members = self.members;
        let is_ours = |theirs: &&String| ours.split(',').any(|ours| ours.trim() == theirs.as_str());
        Ok(match self.strategy.as_ref().filter(|theirs| !is_ours(theirs)) {
            None => format!("group `{group}`: its coordinator answers, members: {members}"),
            // All of them may know ours as well; of that nothing is told.
            Some(theirs) => format!(
                "group `{group}`: note: its members ({members}) share out partitions by `{theirs}`, and a run asks for `{ours}`: if one of \
                 them does not know this, they do not let it in"
            ),
        })
    }
}

impl Reader {
    /// None where the coordinator does not answer such questions.
    fn describe_group(&self, group: &str, ours: &str) -> Result<Option<Described>> {
        use RDKafkaErrorCode as C;
        let name = CString::new(group).map_err(|_| Error::config("group_refused", format!("`{group}` is no group's name")))?;
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let answer = self.ask_as_administrator(kind, ANSWER_MAX, |client, options, queue| {
            let mut names = [name.as_ptr()];
            // SAFETY: the name lives while it is used; all else is the caller's.
            unsafe {
                ask_for_operations(options);
                native::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), names.len(), options, queue);
            }
        })?;
        let group_or_error = match answer.error() {
            Some(code) => Err(code),
            // SAFETY: the answer lives until the end of this function.
            None => unsafe { described(answer.event()) },
        };
        match group_or_error {
            Ok(described) => Ok(Some(described)),
            Err(C::GroupIdNotFound) => Ok(Some(Described::default())), // Nobody has been in it yet.
            Err(C::UnsupportedFeature | C::UnsupportedVersion) => Ok(None),
            // It is one of programs that share out something else.
            Err(C::InvalidArgument) => Err(refused(group, ours)),
            Err(
                C::OperationTimedOut
                | C::TimedOutQueue
                | C::BrokerTransportFailure
                | C::DestroyBroker
                | C::WaitingForCoordinator
                | C::CoordinatorNotAvailable
                | C::CoordinatorLoadInProgress
                | C::NotCoordinator,
            ) => Err(uncoordinated(group)),
            Err(code) => Err(explain(code, &format!("group `{group}`: {code}"), &self.brokers)),
        }
    }
}

/// The one group that an answer is about.
///
/// # Safety
///
/// The event lives, and is an answer to DescribeConsumerGroups.
unsafe fn described(event: *mut native::rd_kafka_event_t) -> Result<Described, RDKafkaErrorCode> {
    // SAFETY: the group is part of the event, and so is all that is reached from it.
    unsafe {
        let result = native::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = match result.is_null() {
            true => std::ptr::null_mut(),
            false => native::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count),
        };
        if groups.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::GroupIdNotFound);
        }
        let group = *groups;
        let error = native::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            let code = native::rd_kafka_error_code(error);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        let mut allowed = 0;
        let operations = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut allowed);
        let classic = native::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CLASSIC;
        let assignor = native::rd_kafka_ConsumerGroupDescription_partition_assignor(group);
        // Of others, the broker shares lanes out.
        let is_shared_by_members = native::rd_kafka_ConsumerGroupDescription_type(group) == classic && !assignor.is_null();
        let strategy = is_shared_by_members.then(|| CStr::from_ptr(assignor).to_string_lossy().into_owned());
        Ok(Described {
            may_read: may_read(operations, allowed),
            members: native::rd_kafka_ConsumerGroupDescription_member_count(group),
            strategy: strategy.filter(|strategy| !strategy.is_empty()),
        })
    }
}

fn uncoordinated(group: &str) -> Error {
    Error::transient(
        "group_not_joined",
        format!(
            "The broker that coordinates group `{group}` does not answer, or there is none: a run would be given no lanes until it does. Check that all \
             brokers are up."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_told_by_how_it_shares_lanes_out_and_by_what_we_may_do() {
        let described = |may_read, members, strategy: &str| Described {
            may_read,
            members,
            strategy: (!strategy.is_empty()).then(|| strategy.to_owned()),
        };
        let told = |described: Described| described.told("g", "range, roundrobin", "b:9092");
        for described in [
            described(None, 0, ""),
            described(Some(true), 2, "range"),
            described(Some(true), 2, "roundrobin"),
        ] {
            let said = told(described).unwrap();
            assert!(said.contains("`g`") && !said.contains("note"), "{said}");
        }
        let said = told(described(Some(true), 3, "cooperative-sticky")).unwrap();
        for part in ["note", "(3)", "`cooperative-sticky`", "`range, roundrobin`"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        let error = told(described(Some(false), 0, "")).unwrap_err();
        assert_eq!((error.code, error.exit_code()), ("broker_denied", 77), "{error}");
        assert!(error.what.contains("`g`") && error.what.contains("READ on the group"), "{error}");
    }
}
