package main

import (
	"time"

	"github.com/fairway-cni/fairway/internal/agent"
)

// options lists everything that a user can set, in the order of
// docs/configuration.md.
func options() []option {
	var all []option
	for _, part := range [][]option{poolOptions, eniOptions, clusterOptions, watchOptions, fileOptions, nativeOptions, datapathOptions} {
		all = append(all, part...)
	}
	return all
}

var poolOptions = []option{
	{"warm-eni-target", "WARM_ENI_TARGET", "ENIs with all their addresses to keep free", "2",
		whole(func(s *settings) *int { return &s.cfg.Targets.WarmENIs })},
	{"warm-ip-target", "WARM_IP_TARGET", "addresses to keep free; 0: not set; goes before --warm-eni-target and --warm-prefix-target", "5",
		whole(func(s *settings) *int { return &s.cfg.Targets.WarmIPs })},
	{"minimum-ip-target", "MINIMUM_IP_TARGET", "addresses to have in all; 0: not set; goes before --warm-eni-target and --warm-prefix-target", "30",
		whole(func(s *settings) *int { return &s.cfg.Targets.MinimumIPs })},
	{"prefix-delegation", "ENABLE_PREFIX_DELEGATION", "ask EC2 for /28 prefixes instead of addresses, where the instance type can", "true",
		yes(func(s *settings) *bool { return &s.cfg.Targets.Prefixes })},
	{"warm-prefix-target", "WARM_PREFIX_TARGET", "/28 prefixes to keep free", "1",
		whole(func(s *settings) *int { return &s.cfg.Targets.WarmPrefixes })},
	{"max-enis", "MAX_ENI", "most ENIs of the instance, the primary included; 0 or less: what its type allows", "3",
		maximum(func(s *settings) *int { return &s.cfg.Targets.MaxENIs })},
	{"max-pods", "", "kubelet's --max-pods; no more addresses are kept than so many pods can use; 0: not known", "29",
		whole(func(s *settings) *int { return &s.cfg.MaxPods })},
	{"cool-down", "IP_COOLDOWN_PERIOD", "rest of a released address before another pod may have it", "10",
		span(func(s *settings) *time.Duration { return &s.cfg.CoolDown })},
	{"return-after", "", "how long an address or an ENI must have been free before it is given back to EC2", "5m",
		span(func(s *settings) *time.Duration { return &s.cfg.Targets.ReturnAfter })},
	{"add-wait", "", "how long an ADD waits for an address that is on its way", "90s",
		span(func(s *settings) *time.Duration { return &s.cfg.AddWait })},
}

var eniOptions = []option{
	{"cluster-name", "CLUSTER_NAME", "name of the cluster, a tag of its ENIs; leaked ENIs of other clusters are left alone", "prod",
		text(func(s *settings) *string { return &s.cfg.ClusterName })},
	{"eni-tags", "ADDITIONAL_ENI_TAGS", "further tags of ENIs, a JSON object; a key with " + agent.ReservedTag + " is ignored", `{"team":"net"}`,
		tags()},
	{"custom-networking", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "make ENIs in the subnet and with the security groups of the ENIConfig that the node selects", "true",
		yes(func(s *settings) *bool { return &s.cfg.CustomNetwork.Enabled })},
	{"eni-config-annotation", "ENI_CONFIG_ANNOTATION_DEF", "annotation of the node that names its ENIConfig; goes before the label", "example.com/eniConfig",
		text(func(s *settings) *string { return &s.cfg.CustomNetwork.AnnotationKey })},
	{"eni-config-label", "ENI_CONFIG_LABEL_DEF", "label of the node that names its ENIConfig", "topology.kubernetes.io/zone",
		text(func(s *settings) *string { return &s.cfg.CustomNetwork.LabelKey })},
	{"eni-config-file", "", "file with ENIConfigs and this node's labels and annotations", "/etc/fairway/eniconfigs.yaml",
		path(func(s *settings) *string { return &s.cfg.CustomNetwork.File })},
	{"subnet-discovery", "ENABLE_SUBNET_DISCOVERY", "make further ENIs also in subnets tagged kubernetes.io/role/cni, where most addresses are free", "false",
		yes(func(s *settings) *bool { return &s.cfg.SubnetDiscovery })},
	{"manage-untagged-eni", "MANAGE_UNTAGGED_ENI", "take an attached ENI without the instance's tag for ours", "false",
		yes(func(s *settings) *bool { return &s.cfg.ManageUntagged })},
	{"disable-leaked-eni-cleanup", "DISABLE_LEAKED_ENI_CLEANUP", "leave ENIs that other nodes have left behind", "true",
		not(func(s *settings) *bool { return &s.cfg.LeakedCleanup })},
	{"disable-network-resource-provisioning", "DISABLE_NETWORK_RESOURCE_PROVISIONING", "use the ENIs and addresses that are there, and ask EC2 for none", "true",
		yes(func(s *settings) *bool { return &s.cfg.Targets.NoProvisioning })},
	{"imds-only", "ENABLE_IMDS_ONLY_MODE", "call EC2 for nothing at all; implies --disable-network-resource-provisioning", "true",
		yes(func(s *settings) *bool { return &s.cfg.IMDSOnly })},
}

var watchOptions = []option{
	{"metrics-address", "", "address of the Prometheus metrics; empty: none", "127.0.0.1:61678",
		text(func(s *settings) *string { return &s.metrics })},
	{"disable-metrics", "DISABLE_METRICS", "serve no metrics", "true",
		yes(func(s *settings) *bool { return &s.noMetrics })},
	{"introspection-address", "INTROSPECTION_BIND_ADDRESS", "address of the introspection, or unix: and a path; empty: none", "unix:/run/fairway/introspection.sock",
		text(func(s *settings) *string { return &s.introspection })},
	{"disable-introspection", "DISABLE_INTROSPECTION", "serve no introspection", "true",
		yes(func(s *settings) *bool { return &s.noIntrospection })},
	{"log-level", "AWS_VPC_K8S_CNI_LOGLEVEL", "least level of the agent's log: DEBUG, INFO, WARN, ERROR, FATAL", "DEBUG",
		word(func(s *settings) *string { return &s.logLevel }, agent.LogLevels()...)},
	{"log-file", "AWS_VPC_K8S_CNI_LOG_FILE", "where the agent's log goes: stdout, stderr or a path", "/var/log/fairway/agent.log",
		text(func(s *settings) *string { return &s.logFile })},
	{"plugin-log-level", "AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "least level of the plugin's log: DEBUG, INFO, WARN, ERROR, FATAL", "ERROR",
		word(func(s *settings) *string { return &s.cfg.PluginLogLevel }, agent.LogLevels()...)},
	{"plugin-log-file", "AWS_VPC_K8S_PLUGIN_LOG_FILE", "where the plugin's log goes: stderr or a path; empty: nowhere", "/var/log/fairway/plugin.log",
		text(func(s *settings) *string { return &s.cfg.PluginLogFile })},
}
