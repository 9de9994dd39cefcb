//! The demonstration: starts three nodes and shows their functions step by step.

use std::{ffi::OsString, io, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    client::{Client, send_once},
    cluster::{NodeProcess, field, free_nodes, wait_for},
    protocol::{Reply, Request},
    types::{Addresses, Change},
};

const TIMEOUT: Duration = Duration::from_secs(20);
/// The time limit; the demonstration takes about ten seconds.
const LIFETIME: Duration = Duration::from_secs(180);

pub(crate) async fn run() -> io::Result<()> {
    let name = format!("raft-kv-demo-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let shown = tokio::select! {
        shown = timeout(LIFETIME, show(&directory)) => shown.map_err(io::Error::from)?,
        stop = tokio::signal::ctrl_c() => stop,
    };
    if shown.is_ok() {
        std::fs::remove_dir_all(&directory)?;
    }
    shown
}

struct Demo {
    nodes: Vec<NodeProcess>,
    client: Client,
    step: u32,
}

async fn show(directory: &Path) -> io::Result<()> {
    let mut demo = Demo::begin(directory).await?;
    demo.write_and_read().await?;
    demo.kill_the_leader().await?;
    demo.compact().await?;
    demo.change_members().await?;
    demo.transfer_leadership().await?;
    demo.restart_all().await?;
    println!("Done. The nodes end, and their data is removed.");
    Ok(())
}

impl Demo {
    fn print_step(&mut self, text: &str) {
        self.step += 1;
        println!("{:2}. {text}", self.step);
    }

    async fn begin(directory: &Path) -> io::Result<Demo> {
        let arguments = [format!("--lifetime-seconds={}", LIFETIME.as_secs() + 20)];
        let arguments: Vec<OsString> = arguments.map(OsString::from).into();
        let mut nodes: Vec<NodeProcess> = (1..)
            .zip(free_nodes(4)?)
            .map(|(id, node)| NodeProcess::new(id, node, directory, arguments.clone()))
            .collect();
        let members: Vec<(u64, Addresses)> =
            nodes[..3].iter().map(|node| (node.id, node.addresses.clone())).collect();
        nodes[..3].iter_mut().try_for_each(|node| node.start(&[]))?;
        let addresses = members.iter().map(|(_, node)| node.clients.clone()).collect();
        let mut demo = Demo { nodes, client: Client::new(addresses, 1), step: 0 };
        demo.print_step(&format!(
            "Three nodes run in separate processes, with their data in {}",
            directory.display()
        ));
        for (id, node) in &members {
            println!("      node {id}: clients at {}", node.clients);
        }
        demo.request_ok(&Request::Initialize(members)).await?;
        let leader = demo.leader().await?;
        demo.print_step(&format!("They form a cluster; node {leader} is the leader"));
        Ok(demo)
    }

    async fn write_and_read(&mut self) -> io::Result<()> {
        self.print_step(
            "A put, a read, and two compare-and-sets; the second one fails, because the value differs",
        );
        self.put("river", "Rhine").await?;
        self.expect_value("river", "Rhine").await?;
        let cas = |value: &str| Change::Cas {
            key: "river".into(),
            expected: Some("Rhine".into()),
            value: value.into(),
        };
        self.write(cas("Elbe"), Reply::Ok).await?;
        self.write(cas("Oder"), Reply::Mismatch(Some("Elbe".into()))).await?;
        self.print_step("The same linearizable read through each node");
        for index in 0..3 {
            self.client.use_node(index);
            self.expect_value("river", "Elbe").await?;
        }
        Ok(())
    }

    async fn kill_the_leader(&mut self) -> io::Result<()> {
        let leader = self.leader().await?;
        self.print_step(&format!("SIGKILL of node {leader}, the leader; the other two continue"));
        let at = (leader - 1) as usize;
        self.nodes[at].kill();
        self.put("city", "Basel").await?;
        self.expect_value("river", "Elbe").await?;
        let next = self.leader().await?;
        self.print_step(&format!(
            "Node {next} is the leader now. Node {leader} restarts and catches up"
        ));
        self.nodes[at].start(&[])?;
        self.wait(3, |status| field(status, "keys") == "2").await
    }

    async fn compact(&mut self) -> io::Result<()> {
        self.print_step(
            "A thousand writes; then each node takes a snapshot and purges its log up to it",
        );
        for number in 0..1_000 {
            self.put("counter", &number.to_string()).await?;
        }
        for node in &self.nodes[..3] {
            self.request_ok_from(&node.addresses.clients, &Request::Snapshot).await?;
        }
        let number = |status: &str, name: &str| field(status, name).parse::<u64>().unwrap_or(0);
        self.wait(3, |status| number(status, "snapshot") > 500).await?;
        for node in &self.nodes[..3] {
            self.request_ok_from(&node.addresses.clients, &Request::Purge).await?;
        }
        self.wait(3, |status| number(status, "purged") > 500).await
    }

    async fn change_members(&mut self) -> io::Result<()> {
        self.print_step("Node 4 starts, receives the leader's snapshot, and replaces node 1");
        self.nodes[3].start(&[])?;
        let newcomer = self.nodes[3].addresses.clone();
        self.request_ok(&Request::Learn(4, newcomer)).await?;
        self.request_ok(&Request::Members(vec![2, 3, 4])).await?;
        self.wait(3, |status| field(status, "voters") == "2,3,4").await?;
        self.nodes[0].kill();
        let addresses = self.nodes[1..].iter().map(|node| node.addresses.clients.clone());
        self.client = Client::new(addresses.collect(), 2);
        self.client.use_node(2);
        self.expect_value("counter", "999").await
    }

    async fn transfer_leadership(&mut self) -> io::Result<()> {
        let leader = self.leader().await?;
        let next = if leader == 4 { 2 } else { 4 };
        self.print_step(&format!("Node {leader} transfers the leadership to node {next}"));
        self.request_ok(&Request::Lead(next)).await?;
        let next = next.to_string();
        self.wait(3, |status| field(status, "leader") == next).await
    }

    async fn restart_all(&mut self) -> io::Result<()> {
        self.print_step("SIGKILL of all nodes at once; they restart, and have all values");
        self.put("last", "word").await?;
        self.nodes.iter_mut().for_each(NodeProcess::signal_kill);
        self.nodes.iter_mut().for_each(NodeProcess::reap);
        self.nodes[1..].iter_mut().try_for_each(|node| node.start(&[]))?;
        for (key, value) in
            [("river", "Elbe"), ("city", "Basel"), ("counter", "999"), ("last", "word")]
        {
            self.expect_value(key, value).await?;
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.write(Change::Put { key: key.into(), value: value.into() }, Reply::Ok).await
    }

    async fn write(&mut self, change: Change, expected: Reply) -> io::Result<()> {
        let reply = self.client.write(change, TIMEOUT).await?;
        check(&reply, &expected)
    }

    async fn expect_value(&mut self, key: &str, value: &str) -> io::Result<()> {
        let reply = self.client.get(key, TIMEOUT).await?;
        check(&reply, &Reply::Value(value.into()))?;
        println!("      {key} = {value}");
        Ok(())
    }

    async fn request_ok(&mut self, request: &Request) -> io::Result<()> {
        check(&self.client.send(request, TIMEOUT).await?, &Reply::Ok)
    }

    async fn request_ok_from(&self, address: &str, request: &Request) -> io::Result<()> {
        check(&send_once(address, request, TIMEOUT).await?, &Reply::Ok)
    }

    async fn leader(&self) -> io::Result<u64> {
        let leads = |status: &str| field(status, "state") == "Leader";
        let leaders = wait_for(&self.addresses(), 1, TIMEOUT, leads).await?;
        field(&leaders[0], "id").parse().map_err(io::Error::other)
    }

    async fn wait(&self, count: usize, matches: impl Fn(&str) -> bool) -> io::Result<()> {
        for status in wait_for(&self.addresses(), count, TIMEOUT, matches).await? {
            println!("      {status}");
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addresses.clients.clone()).collect()
    }
}

fn check(reply: &Reply, expected: &Reply) -> io::Result<()> {
    match reply == expected {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("the reply is {reply}, but {expected} was expected")))
        }
    }
}
