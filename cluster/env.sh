# What Ray and bat_dist need in the environment of every node, head and worker, and of the driver.
# install.sh puts it at the head of ~/.bashrc, so that `ray up`, `ray submit` and an ssh session all have it.
. "$HOME/.bat-dist/venv/bin/activate"

export RAY_ADDRESS=auto            # a program started here joins the cluster, and never starts a Ray of its own
export RAY_AUTH_MODE=token         # the token is in ~/.ray/auth_token; without it nobody joins, submits or looks
export RAY_USAGE_STATS_ENABLED=0

# A node that falls silent is given up after 10 to 20 s, not after minutes.
export RAY_health_check_period_ms=2000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=5
export RAY_grpc_client_keepalive_time_ms=10000
export RAY_grpc_client_keepalive_timeout_ms=10000

# A node may take minutes to start: its disk may be cold.  With Ray's defaults of 30 and 60 s it would not start at all.
export RAY_gcs_server_port_wait_time_s=300
export RAY_agent_register_timeout_ms=300000
export RAY_DASHBOARD_STARTUP_TIMEOUT_S=300

# A task that runs out of memory is given up after a few tries, not tried for ever.
export RAY_task_oom_retries=3

# Ray would start an idle process for each CPU of a node when a job begins.  Ours take none of them: they bring their own code.
export RAY_prestart_worker_first_driver=0

# Without NVIDIA's MPS, by which workers that share a GPU run side by side (docs/gpu.md):
# export BAT_DIST_MPS=0

# Threads of torch that have nothing to do sleep.  By default they spin, which on cores that are shared with others made a
# training of small images 15 times as slow.
export OMP_WAIT_POLICY=passive
