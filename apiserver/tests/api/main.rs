//! The API server from outside: a real etcd-lite behind it, requests over TLS. One program, so that it is linked once.

mod common;

mod admission;
mod admission_on_request;
mod admission_policies;
mod aggregation;
mod applying;
mod audit;
mod audit_webhook;
mod authentication;
mod authorization;
mod authorization_webhooks;
mod bad_input;
mod cel_rules;
mod client_authorities;
mod command_line;
mod conversion_webhook;
mod corpus;
mod custom_resources;
mod discovery_table;
mod encryption;
mod flow_control;
mod identities;
mod kinds;
mod mutating_policies;
mod objects;
mod pod_parts;
mod protobuf;
mod proxying;
mod reading;
mod self_signed;
mod slow_clients;
mod two_servers;
mod watching;
mod webhooks;
mod workloads;
