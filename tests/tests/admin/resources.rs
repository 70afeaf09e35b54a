//! Groups and subscriptions to client metrics as resources, and the list of all resources.

use kafka_protocol::messages::ListConfigResourcesRequest;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

use crate::Row;
use crate::ask::{
    self, BROKER, CLIENT_METRICS, GROUP, LOGGERS, SET, TOPIC, alter, key, refused, told,
};

pub(crate) const ROWS: &[Row] = &[
    ("a_group_that_nobody_configured", a_group_that_nobody_configured),
    ("a_group_s_own_values", a_group_s_own_values),
    ("client_metrics", client_metrics),
    ("resources_are_listed", resources_are_listed),
    ("unknown_kinds_are_not_listed", unknown_kinds_are_not_listed),
];

fn a_group_that_nobody_configured(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let group = requests::unique("group");
    for (name, default) in [
        ("consumer.session.timeout.ms", "45000"),
        ("consumer.heartbeat.interval.ms", "5000"),
        ("consumer.assignment.interval.ms", "1000"),
    ] {
        let config = key(&mut client, GROUP, &group, name)?;
        assert_eq!((config.value.as_deref(), config.config_source), (Some(default), 5));
        assert_eq!((config.config_type, config.read_only), (3, false));
        let synonyms: Vec<String> =
            config.synonyms.iter().map(|synonym| synonym.name.to_string()).collect();
        assert_eq!(synonyms, [format!("group.{name}")]);
    }
    let nobody = ask::describe(&mut client, GROUP, "", &[])?;
    let got = (nobody.error_code, told(nobody.error_message.as_ref()));
    assert_eq!(got, refused(42, "Group name must not be empty"));
    Ok(())
}

fn a_group_s_own_values(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let group = requests::unique("group");
    let timeout = "consumer.session.timeout.ms";
    ask::set(&mut client, GROUP, &group, timeout, "50000")?;
    ask::until("the timeout", || {
        let value = ask::value(&mut client, GROUP, &group, timeout)?;
        Ok(value.as_deref() == Some("50000"))
    })?;
    let config = key(&mut client, GROUP, &group, timeout)?;
    let sources: Vec<i8> = config.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!((config.config_source, sources), (8, vec![8, 5]));
    assert!(listed(&mut client, GROUP)?.contains(&group));
    for (name, key, code, text) in [
        (&*group, "no.such", 40, "Unknown group config name: no.such"),
        ("", timeout, 42, "Default group resources are not allowed."),
    ] {
        let got = alter(&mut client, GROUP, name, &[(key, SET, Some("50000"))])?;
        assert_eq!(got, refused(code, text));
    }
    let short = alter(&mut client, GROUP, &group, &[(timeout, SET, Some("5"))])?;
    assert_eq!(short.0, 40, "shorter than the broker allows: {short:?}");
    ask::unset(&mut client, GROUP, &group, timeout)?;
    ask::until("the default", || Ok(key(&mut client, GROUP, &group, timeout)?.config_source == 5))
}

fn client_metrics(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("metrics");
    for (key_name, default, kind) in
        [("interval.ms", "300000", 3), ("metrics", "", 7), ("match", "", 7)]
    {
        let config = key(&mut client, CLIENT_METRICS, &name, key_name)?;
        assert_eq!((config.value.as_deref(), config.config_source), (Some(default), 5));
        assert_eq!((config.config_type, config.synonyms.len()), (kind, 0));
    }
    ask::set(&mut client, CLIENT_METRICS, &name, "interval.ms", "50000")?;
    ask::until("the interval", || {
        Ok(key(&mut client, CLIENT_METRICS, &name, "interval.ms")?.config_source == 7)
    })?;
    assert!(listed(&mut client, CLIENT_METRICS)?.contains(&name));
    for (resource, key, text) in [
        (&*name, "no.such", "Unknown client metrics configuration: no.such"),
        ("", "interval.ms", "Subscription name can't be empty"),
    ] {
        let got = alter(&mut client, CLIENT_METRICS, resource, &[(key, SET, Some("50000"))])?;
        assert_eq!(got, refused(42, text));
    }
    ask::unset(&mut client, CLIENT_METRICS, &name, "interval.ms")?;
    let nobody = ask::describe(&mut client, CLIENT_METRICS, "", &[])?;
    let text = "Client metrics subscription name must not be empty";
    assert_eq!((nobody.error_code, told(nobody.error_message.as_ref())), refused(42, text));
    Ok(())
}

fn listed(client: &mut RawClient, kind: i8) -> Tested<Vec<String>> {
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![kind]);
    let response = client.call(1, &request)?;
    assert_eq!(response.error_code, 0);
    assert!(response.config_resources.iter().all(|resource| resource.resource_type == kind));
    let names = response.config_resources.iter().map(|resource| resource.resource_name.to_string());
    Ok(names.collect())
}

fn resources_are_listed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let topic = requests::create_topic(&mut client, "listed", 1, &[])?;
    assert_eq!(listed(&mut client, BROKER)?, std::slice::from_ref(&node));
    assert_eq!(listed(&mut client, LOGGERS)?, std::slice::from_ref(&node));
    assert!(listed(&mut client, TOPIC)?.contains(&topic));
    for kinds in [vec![], vec![TOPIC, BROKER, LOGGERS, TOPIC]] {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds);
        let response = client.call(1, &request)?;
        assert_eq!(response.error_code, 0);
        for (kind, name) in [(TOPIC, &topic), (BROKER, &node), (LOGGERS, &node)] {
            let is_it = |resource: &&ConfigResource| {
                (resource.resource_type, &*resource.resource_name) == (kind, name)
            };
            assert_eq!(response.config_resources.iter().filter(is_it).count(), 1, "{kind} {name}");
        }
    }
    // Version 0 knows subscriptions to client metrics alone.
    let response = client.call(0, &ListConfigResourcesRequest::default())?;
    assert_eq!((response.error_code, response.config_resources.as_slice()), (0, &[][..]));
    Ok(())
}

fn unknown_kinds_are_not_listed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for kinds in [vec![0], vec![1], vec![77], vec![TOPIC, 3]] {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.clone());
        let response = client.call(1, &request)?;
        assert_eq!((response.error_code, response.config_resources.len()), (35, 0), "{kinds:?}");
    }
    Ok(())
}
