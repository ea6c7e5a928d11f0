//! The manifests in `deploy/`, rendered as `kubectl kustomize` renders them, against the rules that we hold ourselves to. `tests/run`
//! checks the same output against the schemas of Kubernetes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_json::{Value, json};

const YARDARM: &str = env!("CARGO_BIN_EXE_yardarm");

/// A pod template, and what it belongs to.
struct Pod<'m> {
    name: String,
    template: &'m Value,
}

#[test]
fn every_container_is_as_restricted_as_it_can_be() {
    for manifests in [base(), example()] {
        let broken: Vec<_> = pods(&manifests).iter().flat_map(breaches).collect();
        assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
    }
}

#[test]
fn a_container_that_breaks_a_rule_is_found() {
    let manifests = base();
    let container = "/spec/template/spec/containers/0";
    let plants: [(&str, Value, &str); 11] = [
        ("/resources/requests", json!({}), "cpu"),
        ("/resources/limits", json!({}), "memory limit"),
        ("/image", json!("ghcr.io/yardarm/yardarm:latest"), "latest"),
        ("/image", json!("ghcr.io:5000/yardarm"), "tag"),
        ("/livenessProbe", Value::Null, "livenessProbe"),
        ("/readinessProbe", Value::Null, "readinessProbe"),
        ("/securityContext/readOnlyRootFilesystem", json!(false), "read-only"),
        ("/securityContext/allowPrivilegeEscalation", Value::Null, "escalate"),
        ("/securityContext/capabilities/drop", json!([]), "capabilities"),
        ("/securityContext/capabilities/add", json!(["NET_ADMIN"]), "capabilities"),
        ("/securityContext/runAsUser", json!(0), "root"),
    ];
    for (path, value, expected) in plants {
        let mut manifests = manifests.clone();
        let workload = manifests.iter_mut().find(|manifest| manifest["kind"] == "StatefulSet").unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        workload.pointer_mut(&format!("{container}{parent}")).unwrap()[key] = value;
        let broken: Vec<_> = pods(&manifests).iter().flat_map(breaches).collect();
        assert!(broken.len() == 1 && broken[0].contains(expected), "{path}: {broken:#?}");
    }
    for (path, value, expected) in [("/seccompProfile", Value::Null, "seccomp"), ("/runAsNonRoot", Value::Null, "non-root")] {
        let mut manifests = manifests.clone();
        let workload = manifests.iter_mut().find(|manifest| manifest["kind"] == "StatefulSet").unwrap();
        workload.pointer_mut("/spec/template/spec/securityContext").unwrap()[&path[1..]] = value;
        let broken: Vec<_> = pods(&manifests).iter().flat_map(breaches).collect();
        assert!(broken.len() == 1 && broken[0].contains(expected), "{path}: {broken:#?}");
    }
}

#[test]
fn the_sidecar_is_native_first_and_gates_the_application_without_counting_into_readiness() {
    let manifests = example();
    let pods = pods(&manifests);
    let sidecar = &pods[0].template["spec"]["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("yardarm"), &json!("Always")));
    let management = sidecar["ports"].as_array().unwrap().iter().find(|port| port["name"] == "yardarm-mgmt").unwrap();
    assert_eq!(management["containerPort"], 8014);
    assert_eq!(sidecar["startupProbe"]["httpGet"], json!({ "path": "/readyz", "port": "yardarm-mgmt" }));
    assert_eq!(sidecar["livenessProbe"]["httpGet"], json!({ "path": "/healthz", "port": "yardarm-mgmt" }));
    assert_eq!(sidecar["readinessProbe"], Value::Null, "it would empty every Service when the control plane is away");
    assert!(arguments(sidecar).contains(&"--management=0.0.0.0:8014".to_owned()), "the kubelet cannot probe a loopback address");
    for decides in ["--listen=127.0.0.1:8013", "--ofrep=127.0.0.1:8016", "--sync=127.0.0.1:8015"] {
        assert!(arguments(sidecar).contains(&decides.to_owned()), "decisions are for this pod only");
    }
}

#[test]
fn the_socket_is_in_memory_and_both_sides_mount_it() {
    let manifests = example();
    let spec = &pods(&manifests)[0].template["spec"];
    let volume = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "yardarm-socket").unwrap();
    assert_eq!(volume["emptyDir"]["medium"], "Memory");
    assert!(spec["securityContext"]["fsGroup"].is_u64(), "the socket is open to its group only");
    for container in [&spec["initContainers"][0], &spec["containers"][0]] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == "yardarm-socket").unwrap();
        assert_eq!(mount["mountPath"], "/run/yardarm", "{}", container["name"]);
    }
}

#[test]
fn the_component_touches_labelled_deployments_only_and_comes_before_their_init_containers() {
    let deployment = |name: &str, label: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: {name}, labels: {{ {label} }} }}\nspec:\n  selector: {{ matchLabels: {{ app: {name} }} }}\n  template:\n    metadata: {{ labels: {{ app: {name} }} }}\n    spec:\n      initContainers: [{{ name: migrate, image: \"x:1\" }}]\n      containers: [{{ name: app, image: \"x:1\" }}]\n"
        )
    };
    let overlay = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(overlay.path().join("with.yaml"), deployment("with", "yardarm.dev/sidecar: \"true\"")).unwrap();
    fs::write(overlay.path().join("without.yaml"), deployment("without", "")).unwrap();
    let component = from(&overlay.path().canonicalize().unwrap(), &Path::new("deploy/components/sidecar").canonicalize().unwrap());
    let kustomization = format!(
        "resources: [with.yaml, without.yaml]\ncomponents: [{}]\nconfigMapGenerator: [{{ name: yardarm-sidecar, literals: [YARDARM_ENVIRONMENT=prod] }}]\n",
        component.display()
    );
    fs::write(overlay.path().join("kustomization.yaml"), kustomization).unwrap();
    let manifests = render(overlay.path());
    let names: BTreeMap<_, Vec<_>> = pods(&manifests)
        .iter()
        .map(|pod| (pod.name.clone(), containers(&pod.template["spec"]["initContainers"]).map(|c| c["name"].as_str().unwrap()).collect()))
        .collect();
    assert_eq!(names["Deployment/with"], ["yardarm", "migrate"]);
    assert_eq!(names["Deployment/without"], ["migrate"]);
}

/// The sidecars of an environment that nobody made are never ready, and the application never starts.
#[test]
fn the_environment_of_the_example_is_one_that_the_documented_installation_makes() {
    let map = example().into_iter().find(|manifest| manifest["kind"] == "ConfigMap" && !manifest["data"]["YARDARM_ENVIRONMENT"].is_null());
    let environment = map.unwrap()["data"]["YARDARM_ENVIRONMENT"].as_str().unwrap().to_owned();
    let readme = fs::read_to_string("deploy/README.md").unwrap();
    let install = readme.split("## Install").nth(1).unwrap().split("\nAn application").next().unwrap();
    let is_default = environment == yardarm::control::DEFAULT_ENVIRONMENT;
    assert!(is_default || install.contains(&format!("yardarm env create {environment}")), "nothing makes `{environment}`");
    let apply = install.lines().find(|line| line.contains("yardarm flag apply")).expect("the samples are applied");
    let into =
        apply.split_once("--env ").map_or(yardarm::control::DEFAULT_ENVIRONMENT, |(_, name)| name.split_whitespace().next().unwrap());
    assert_eq!(into, environment, "the samples go where the example's sidecars look");
}

/// One image has two roles, and a check that asks one of them calls the other unhealthy for ever.
#[test]
fn the_image_of_both_roles_has_no_health_check_of_one() {
    let dockerfile = fs::read_to_string("deploy/Dockerfile").unwrap();
    assert!(!dockerfile.lines().any(|line| line.starts_with("HEALTHCHECK")));
}

#[test]
fn an_overlay_that_forgot_the_settings_of_the_sidecar_does_not_render() {
    let overlay = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let component = from(&overlay.path().canonicalize().unwrap(), &Path::new("deploy/components/sidecar").canonicalize().unwrap());
    fs::write(overlay.path().join("kustomization.yaml"), format!("components: [{}]\n", component.display())).unwrap();
    let output = kustomize(overlay.path());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("yardarm-sidecar"), "{output:?}");
}

/// A policy, a service or a budget that selects nothing is silent in a cluster.
#[test]
fn what_selects_the_control_plane_selects_its_pods() {
    let manifests = base();
    let labels = &pods(&manifests)[0].template["metadata"]["labels"];
    for (kind, selector) in [
        ("Service", "/spec/selector"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("StatefulSet", "/spec/selector/matchLabels"),
    ] {
        let wanted = of_kind(&manifests, kind).pointer(selector).and_then(Value::as_object).unwrap();
        assert!(!wanted.is_empty() && wanted.iter().all(|(label, value)| labels[label] == *value), "{kind} selects {wanted:?} of {labels}");
    }
    let workload = of_kind(&manifests, "StatefulSet");
    assert_eq!(workload["spec"]["replicas"], 1, "the embedded store has one writer");
    let ports = &workload["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(*ports, json!([{ "name": "grpc", "containerPort": 8020 }, { "name": "webhooks", "containerPort": 8021 }]));
    let service = of_kind(&manifests, "Service")["spec"]["ports"].as_array().unwrap();
    let told: Vec<_> = service.iter().map(|port| (port["targetPort"].as_str().unwrap(), port["port"].as_u64().unwrap())).collect();
    assert_eq!(told, [("grpc", 8020), ("webhooks", 8021)]);
}

#[test]
fn the_policy_in_front_of_the_control_plane_admits_the_sidecars_of_the_example() {
    let (base, example) = (base(), example());
    assert_eq!(of_kind(&base, "NetworkPolicy")["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let from = admitted(&base, "grpc");
    assert!(matches(&from["namespaceSelector"], &of_kind(&example, "Namespace")["metadata"]["labels"]));
    assert!(matches(&from["podSelector"], &pods(&example)[0].template["metadata"]["labels"]));
    assert!(!matches(&from["namespaceSelector"], &of_kind(&base, "Namespace")["metadata"]["labels"]), "only who was let in by name");
}

#[test]
fn webhooks_are_off_and_who_may_send_them_reaches_nothing_else() {
    let (base, example) = (base(), example());
    let pods = pods(&base);
    let container = ours(&pods[0])[0];
    let switch = containers(&container["env"]).find(|variable| variable["name"] == "YARDARM_WEBHOOKS").unwrap();
    assert_eq!(switch["value"], "", "a port is opened by whoever needs it");
    assert!(arguments(container).iter().all(|argument| !argument.starts_with("--webhooks")));
    let alerting = json!({ "yardarm.dev/alerts": "true" });
    let (hooks, all) = (admitted(&base, "webhooks"), admitted(&base, "grpc"));
    for selector in ["namespaceSelector", "podSelector"] {
        assert!(matches(&hooks[selector], &alerting) && !matches(&all[selector], &alerting), "{selector}");
    }
    let sidecar = &self::pods(&example)[0].template["metadata"]["labels"];
    assert!(!matches(&hooks["podSelector"], sidecar), "an application kills no flag");
    let readme = fs::read_to_string("deploy/README.md").unwrap();
    assert!(["YARDARM_WEBHOOKS", "0.0.0.0:8021", "yardarm.dev/alerts: \"true\""].iter().all(|told| readme.contains(told)));
}

/// Who alone may reach this port, by one rule that is for no other.
fn admitted<'m>(manifests: &'m [Value], port: &str) -> &'m Value {
    let rules = of_kind(manifests, "NetworkPolicy")["spec"]["ingress"].as_array().unwrap();
    let of_port: Vec<_> = rules.iter().filter(|rule| containers(&rule["ports"]).any(|found| found["port"] == port)).collect();
    let [rule] = of_port.as_slice() else { panic!("{port}: {rules:?}") };
    assert_eq!(rule["ports"], json!([{ "port": port, "protocol": "TCP" }]));
    let [from] = rule["from"].as_array().unwrap().as_slice() else { panic!("{rule}") };
    from
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(label, value)| labels[label] == *value)
}

#[test]
fn the_executable_knows_every_argument_and_variable_of_the_manifests() {
    for manifests in [base(), example()] {
        for pod in pods(&manifests) {
            for container in ours(&pod) {
                let arguments = arguments(container);
                let help = Command::new(YARDARM).args(&arguments).arg("--help").output().unwrap();
                assert!(help.status.success(), "{}: yardarm {}: {}", pod.name, arguments.join(" "), String::from_utf8_lossy(&help.stderr));
                let help = String::from_utf8(help.stdout).unwrap();
                for variable in variables(container, &manifests) {
                    // Read by telemetry from the environment alone, as OpenTelemetry's specification wants it.
                    let is_known = variable == "OTEL_SERVICE_NAME" || help.contains(&format!("[env: {variable}="));
                    assert!(is_known, "{}: {variable} is no variable of yardarm {}", pod.name, arguments[0]);
                }
            }
        }
    }
}

fn breaches(pod: &Pod<'_>) -> Vec<String> {
    let spec = &pod.template["spec"];
    let mut broken = Vec::new();
    for (unwanted, why) in [("hostNetwork", "the host's network"), ("hostPID", "the host's processes"), ("hostIPC", "the host's memory")] {
        if spec[unwanted] == true {
            broken.push(format!("{}: shares {why}", pod.name));
        }
    }
    if spec["automountServiceAccountToken"] != false {
        broken.push(format!("{}: mounts a token of the API server that it does not need", pod.name));
    }
    for (is_init, container) in
        containers(&spec["initContainers"]).map(|c| (true, c)).chain(containers(&spec["containers"]).map(|c| (false, c)))
    {
        let mut breach = |what: &str| broken.push(format!("{}/{}: {what}", pod.name, container["name"].as_str().unwrap_or("?")));
        let security = &container["securityContext"];
        let setting = |name: &str| if security[name].is_null() { &spec["securityContext"][name] } else { &security[name] };
        let resources = &container["resources"];
        if resources["requests"]["cpu"].is_null() || resources["requests"]["memory"].is_null() {
            breach("no request for cpu and memory");
        }
        if resources["limits"]["memory"].is_null() {
            breach("no memory limit");
        }
        if setting("runAsNonRoot") != true {
            breach("not declared non-root");
        }
        if setting("runAsUser").as_u64().is_none_or(|user| user == 0) {
            breach("runs as root or as nobody in particular");
        }
        if setting("seccompProfile")["type"] != "RuntimeDefault" {
            breach("no seccomp profile");
        }
        if security["readOnlyRootFilesystem"] != true {
            breach("its root is not read-only");
        }
        if security["allowPrivilegeEscalation"] != false {
            breach("may escalate its privileges");
        }
        if security["capabilities"]["drop"] != json!(["ALL"]) || !security["capabilities"]["add"].is_null() {
            breach("keeps capabilities");
        }
        let image = container["image"].as_str().unwrap_or_default();
        match image.rsplit('/').next().unwrap_or_default().split_once(':') {
            Some((_, tag)) if tag != "latest" && !tag.is_empty() => {}
            Some(_) => breach("its image is `latest`"),
            None => breach("its image has no tag"),
        }
        let is_sidecar = is_init && container["restartPolicy"] == "Always";
        let probes: &[&str] = match (is_init, is_sidecar) {
            (_, true) => &["startupProbe", "livenessProbe"],
            (true, false) => &[],
            (false, _) => &["livenessProbe", "readinessProbe"],
        };
        probes.iter().filter(|probe| container[**probe].is_null()).for_each(|probe| breach(&format!("no {probe}")));
    }
    broken
}

fn base() -> Vec<Value> {
    render(Path::new("deploy/base"))
}

fn example() -> Vec<Value> {
    render(Path::new("deploy/overlays/example"))
}

fn render(directory: &Path) -> Vec<Value> {
    let output = kustomize(directory);
    assert!(output.status.success(), "{}: {}", directory.display(), String::from_utf8_lossy(&output.stderr));
    let rendered = String::from_utf8(output.stdout).unwrap();
    serde_yaml_ng::Deserializer::from_str(&rendered).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// By `kustomize`, which `tests/run` installs where `kubectl` is missing or too old, else by `kubectl`.
fn kustomize(directory: &Path) -> Output {
    let by_itself = Command::new("kustomize").arg("build").arg(directory).output();
    by_itself
        .or_else(|_| Command::new("kubectl").arg("kustomize").arg(directory).output())
        .expect("neither kustomize nor kubectl is on the PATH; `tests/run test` installs one and runs this")
}

fn pods(manifests: &[Value]) -> Vec<Pod<'_>> {
    let pods: Vec<_> = manifests
        .iter()
        .filter(|manifest| !manifest["spec"]["template"]["spec"]["containers"].is_null())
        .map(|manifest| Pod {
            name: format!("{}/{}", manifest["kind"].as_str().unwrap(), manifest["metadata"]["name"].as_str().unwrap()),
            template: &manifest["spec"]["template"],
        })
        .collect();
    assert!(!pods.is_empty(), "nothing was rendered that runs");
    pods
}

fn of_kind<'m>(manifests: &'m [Value], kind: &str) -> &'m Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap_or_else(|| panic!("no {kind} was rendered"))
}

fn containers(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The containers that run our image.
fn ours<'m>(pod: &Pod<'m>) -> Vec<&'m Value> {
    let spec = &pod.template["spec"];
    let all = containers(&spec["initContainers"]).chain(containers(&spec["containers"]));
    let ours: Vec<_> = all.filter(|container| container["image"].as_str().is_some_and(|image| image.contains("/yardarm:"))).collect();
    assert!(!ours.is_empty(), "{} does not run yardarm", pod.name);
    ours
}

fn arguments(container: &Value) -> Vec<String> {
    containers(&container["args"]).map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

/// Of the container itself and of the ConfigMaps that it takes whole.
fn variables(container: &Value, manifests: &[Value]) -> Vec<String> {
    let own = containers(&container["env"]).map(|variable| variable["name"].as_str().unwrap().to_owned());
    let maps = containers(&container["envFrom"]).flat_map(|from| {
        let name = &from["configMapRef"]["name"];
        let map = manifests.iter().find(|manifest| manifest["kind"] == "ConfigMap" && manifest["metadata"]["name"] == *name).unwrap();
        map["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    });
    own.chain(maps).collect()
}

/// A relative path: kustomize takes no other.
fn from(here: &Path, there: &Path) -> PathBuf {
    let shared = here.components().zip(there.components()).take_while(|(a, b)| a == b).count();
    let up = here.components().skip(shared).map(|_| Path::new(".."));
    up.chain(there.components().skip(shared).map(|component| Path::new(component.as_os_str()))).collect()
}
