//! What a broker that asks who may do what allows its users. The safe wrapper of the client cannot say it.

use std::ffi::CString;
use std::ptr;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kafka::Broker;

const ANSWER_MAX_MS: i32 = 30_000;

/// What something is allowed with.
#[derive(Clone, Copy)]
pub enum On<'a> {
    Topic(&'a str),
    Group(&'a str),
}

#[derive(Clone, Copy)]
pub enum May {
    Describe,
    Read,
}

/// Allows it to a user. The controller says that it is done; brokers act on it a moment later.
pub fn allow(broker: &Broker, user: &str, may: May, on: On<'_>) {
    let text = |text: &str| CString::new(text).expect("a name without zeros");
    let (kind, name) = match on {
        On::Topic(name) => (native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, text(name)),
        On::Group(name) => (native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_GROUP, text(name)),
    };
    let operation = match may {
        May::Describe => native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        May::Read => native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
    };
    let literal = native::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
    let allowed = native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
    let (principal, host) = (text(&format!("User:{user}")), text("*"));
    let consumer: BaseConsumer = broker.client().create().expect("a client");
    // SAFETY: all that is handed over lives while it is used, and what is made here is given back once.
    unsafe {
        let client = consumer.client().native_ptr();
        let (name, principal, host) = (name.as_ptr(), principal.as_ptr(), host.as_ptr());
        let mut rule = native::rd_kafka_AclBinding_new(kind, name, literal, principal, host, operation, allowed, ptr::null_mut(), 0);
        assert!(!rule.is_null(), "a rule is made");
        let queue = native::rd_kafka_queue_new(client);
        native::rd_kafka_CreateAcls(client, &mut rule, 1, ptr::null(), queue);
        let event = native::rd_kafka_queue_poll(queue, ANSWER_MAX_MS);
        assert!(!event.is_null(), "the broker answers");
        let error = native::rd_kafka_event_error(event);
        assert_eq!(
            error,
            native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
            "the broker takes rules"
        );
        let mut count = 0;
        let made = native::rd_kafka_CreateAcls_result_acls(native::rd_kafka_event_CreateAcls_result(event), &mut count);
        assert!(count == 1 && native::rd_kafka_acl_result_error(*made).is_null(), "the rule is made");
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_queue_destroy(queue);
        native::rd_kafka_AclBinding_destroy(rule);
    }
}
