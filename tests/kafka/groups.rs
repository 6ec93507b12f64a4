//! What a look at a group tells of it, before a run joins it.

use std::path::Path;

use alluvium::error::{Error, Kind, Result};
use alluvium::table::Lanes;
use tokio::time::timeout;

use super::{Lake, PATIENCE, Pipe, failed, numbered};
use crate::support::acls::{May, On, allow};
use crate::support::history;
use crate::support::kafka::{Broker, Door};
use crate::support::postgres::wait_until;
use crate::support::program::Site;
use crate::support::shop::{PARTITIONS, Shop, Source};

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_the_group_and_makes_it_share_out_nothing_anew() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let end = source.fill(1_000).model.end();
    let site = Site::new();
    let configure = |name: &str| {
        let options = format!("options = {{ \"partition.assignment.strategy\" = \"{name}\" }}");
        let kafka = format!("group = \"{}\"\n{options}", source.topic);
        let shop = Shop {
            name,
            kafka: &kafka,
            commit: "interval = \"100 ms\"",
            ..Shop::on(&source)
        };
        shop.configure(&site)
    };
    let (range, sticky) = (configure("range"), configure("cooperative-sticky"));
    let check = async |name: &str, config: &Path| {
        let mut program = site.start(name, &["check", "--config", config.to_str().expect("a path in UTF-8")]);
        let exit = program.wait(PATIENCE).await;
        let said = program.log_text();
        assert!(
            exit.status.success() && said.contains(&format!("group `{}`", source.topic)),
            "{said}"
        );
        said
    };
    // The first group of a broker has no coordinator for a while.
    let client = Pipe::new(&source.brokers, "", &[("a", &source.topic)]).client;
    let is_coordinated = async || client.look_at_group(&source.topic).await.is_ok();
    wait_until("the group has a coordinator", is_coordinated).await;
    let said = check("before", &sticky).await;
    assert!(said.contains("members: 0"), "{said}");
    let mut member = site.run("member", &range);
    let is_read = || (history::marks(&site.table("audit")) == end).then_some(());
    member.until("all to be read", PATIENCE, is_read).await;
    let shared_out = |text: String| text.matches("lanes were assigned").count();
    let before = shared_out(member.log_text());
    assert!(before > 0, "{}", member.log_tail());
    let said = check("as-a-member", &range).await;
    assert!(said.contains("members: 1") && !said.contains("note"), "{said}");
    let said = check("in-another-way", &sticky).await;
    assert!(said.contains("note: its members (1) share out partitions by `range`"), "{said}");
    assert_eq!(shared_out(member.log_text()), before, "{}", member.log_tail());
    member.stop().await;
}

/// A broker where whoever is named nowhere may do nothing, but for `admin`; `reader` can log in.
fn guarded() -> Broker {
    // The controllers are not asked who they are.
    let properties = "listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                      username=\"admin\" password=\"admin\" user_admin=\"admin\";\n\
                      listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
                      sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
                      authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                      super.users=User:admin;User:ANONYMOUS\n";
    let users = [
        "SCRAM-SHA-256=[name=admin,password=admin]",
        "SCRAM-SHA-256=[name=reader,password=reader]",
    ];
    Broker::start_secured(Door::sasl(&users), properties)
}

/// Logs a user in, whose password, the user's name, is kept in this folder.
fn login(user: &str, folder: &Path) -> String {
    let file = folder.join(user);
    std::fs::write(&file, user).unwrap();
    let password = format!("{{ file = \"{}\" }}", file.display());
    format!("sasl = {{ mechanism = \"SCRAM-SHA-256\", username = \"{user}\", password = {password} }}\n")
}

fn told(result: Result<()>, what: &str) -> bool {
    matches!(result, Err(error) if error.what.contains(what))
}

fn is_denied(error: &Error, parts: &[&str]) {
    assert_eq!(
        (error.kind, error.code, error.exit_code()),
        (Kind::Config, "broker_denied", 77),
        "{error}"
    );
    assert!(parts.iter().all(|part| error.what.contains(part)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k21_a_group_that_may_not_be_looked_at_is_the_operators_to_grant() {
    let (broker, folder) = (guarded(), tempfile::tempdir().unwrap());
    let pipe = |user: &str| Pipe::new(&broker.bootstrap(), &login(user, folder.path()), &[("a", "granted")]);
    // A broker that has just come up is slow to coordinate its first group.
    let admin = pipe("admin");
    let said = async || admin.client.look_at_group("hers").await.unwrap_or_default();
    wait_until("the group has a coordinator", async || {
        let said = said().await;
        said.contains("`hers`") && said.contains("members: 0")
    })
    .await;
    let error = failed(pipe("reader").client.look_at_group("hers").await);
    is_denied(&error, &["`hers`", "READ on the group"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn k21_what_is_lacking_is_told_to_who_looks_and_to_who_runs() {
    let (broker, site) = (guarded(), Site::new());
    let topic = broker.topic("guarded", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let sasl = login("reader", &site.path("."));
    let pipe = |more: &str| Pipe::new(&broker.bootstrap(), &format!("{sasl}{more}"), &[("a", &topic)]);
    let alone = pipe("");
    let looks = async || {
        let lanes = vec![Lanes::Topics(vec![topic.clone()])];
        alone.client.must_be_readable(lanes).await
    };
    let group = async || alone.client.look_at_group("hers").await.map(drop);
    let check = async |name: &str, more: &str| {
        let text = format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n{sasl}{more}\n\
             [pipelines.p.tables.a]\ntopic = \"{topic}\"\nschema = \"{{dir}}/orders.avsc\"\n",
            broker.bootstrap()
        );
        let config = site.configure(name, &text);
        let mut program = site.start(name, &["check", "--config", config.to_str().expect("a path in UTF-8")]);
        let code = program.wait(PATIENCE).await.status.code();
        (code, program.log_text())
    };

    allow(&broker, "reader", May::Describe, On::Topic(&topic));
    let what = format!("topic `{topic}` may be looked at and not be read");
    wait_until("the topic can be described", async || told(looks().await, &what)).await;
    is_denied(&failed(looks().await), &[topic.as_str(), "READ and DESCRIBE on the topics"]);
    let (code, said) = check("described", "").await;
    assert!(code == Some(77) && said.contains(&what) && !said.contains("reachable"), "{said}");
    is_denied(
        &failed(pipe("").catch_up(&mut Lake::default()).await),
        &["READ and DESCRIBE on the topics"],
    );

    allow(&broker, "reader", May::Read, On::Topic(&topic));
    wait_until("the topic can be read", async || looks().await.is_ok()).await;
    // First the group's coordinator is not told, and then, who may know it, is not let in.
    let joins = async || {
        let member = pipe("group = \"hers\"");
        failed(timeout(PATIENCE, member.open(&Lake::default())).await.expect("it is told soon"))
    };
    is_denied(&joins().await, &["`hers`", "READ on the group"]);
    allow(&broker, "reader", May::Describe, On::Group("hers"));
    let what = "may be looked at and not be joined";
    wait_until("the group can be described", async || told(group().await, what)).await;
    is_denied(&joins().await, &["`hers`", "READ on the group"]);

    allow(&broker, "reader", May::Read, On::Group("hers"));
    wait_until("the group can be joined", async || group().await.is_ok()).await;
    let (member, mut lake) = (pipe("group = \"hers\""), Lake::default());
    while lake.count("a") < 10 {
        let mut source = member.open_at_last(&lake).await;
        member.read(&mut source, &mut lake, |lake| lake.count("a") == 10).await.unwrap();
    }
    drop(member);
    // The group of who has none is not said to lack anything where there is one.
    let (code, said) = check("granted", "group = \"hers\"").await;
    assert!(
        code == Some(0) && said.contains("`hers`") && !said.contains("offsets are not committed"),
        "{said}"
    );
    let (code, said) = check("alone", "").await;
    assert!(code == Some(0) && said.contains("10 records to read"), "{said}");
}
