# Environments for the execution providers whose distributions exclude one another, and the tests that run in them.
# Included by the Makefile at the root; `make -f tests/providers/environments.mk TARGET` works by itself.

# Without bytecode each of the thousand processes that tests start compiles the package, and pytest rewrites it: that is
# half of their time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
APT_GET ?= apt-get
UV ?= uv

# The environments that tests need: .venv-gpu holds onnxruntime-gpu without CUDA's libraries (2 GB), which is enough to
# see it refuse. .venv-cuda holds them too, for a machine with a GPU; it is made only when something asks for it.
# .venv-cluster holds Dask.distributed.
TEST_ENVIRONMENTS = .venv-openvino .venv-webgpu .venv-gpu .venv-cluster
SWIFTSHADER = .venv-webgpu/swiftshader

# A download into this folder as root: apt's own user can't write here, and says so at length.
UNSANDBOXED = -o APT::Sandbox::User=root

# How webgpu finds a device: `swiftshader`, a software one for machines without a GPU, or `system`, what Vulkan finds.
WEBGPU_DEVICE ?= swiftshader

.PHONY: provider-environments test-providers test-cluster lock-providers lock-tensorrt test-cuda test-cuda-options

provider-environments: $(TEST_ENVIRONMENTS:%=%/.made) $(SWIFTSHADER)/.made

# Nothing is compiled ahead: the tests import a tenth of what is installed, and compiling all takes as long as they do.
.venv-%/.made: requirements-%.lock pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $<
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# SwiftShader is a Vulkan device in software. Debian ships it inside Chromium's package, which is unpacked and not
# installed: it would bring a browser.
$(SWIFTSHADER)/.made: | .venv-webgpu/.made
	ldconfig -p | grep -q 'libvulkan\.so\.1' \
	    || { $(APT_GET) update -qq && $(APT_GET) install -y -qq --no-install-recommends libvulkan1; }
	rm -rf $(SWIFTSHADER) && mkdir -p $(SWIFTSHADER)
	cd $(SWIFTSHADER) && { $(APT_GET) $(UNSANDBOXED) download -qq chromium-common \
	    || { $(APT_GET) update -qq && $(APT_GET) $(UNSANDBOXED) download -qq chromium-common; }; }
	cd $(SWIFTSHADER) && dpkg-deb --fsys-tarfile chromium-common_*.deb \
	    | tar -x --strip-components=4 --wildcards './usr/lib/chromium/*vk_swiftshader*'
	rm $(SWIFTSHADER)/chromium-common_*.deb
	@touch $@

WEBGPU_VARIABLES = VK_DRIVER_FILES=$(CURDIR)/$(SWIFTSHADER)/vk_swiftshader_icd.json \
    ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-$(CURDIR)/$(SWIFTSHADER)}

# For `make validate PROVIDER=webgpu`: what goes before the command.
ifeq ($(PROVIDER) $(WEBGPU_DEVICE),webgpu swiftshader)
RUN_ENV = $(WEBGPU_VARIABLES)
validate: $(SWIFTSHADER)/.made
endif

test-providers: provider-environments ## the tests marked `providers`, each in the environment of its provider
	.venv-openvino/bin/python -m pytest -m providers tests/providers/test_openvino.py
	$(WEBGPU_VARIABLES) .venv-webgpu/bin/python -m pytest -m providers tests/providers/test_webgpu.py
	.venv-gpu/bin/python -m pytest -m providers tests/providers/test_gpu_refused.py
	.venv-cluster/bin/python -m pytest -m providers tests/providers/test_cluster.py tests/providers/test_cluster_partition.py

test-cluster: .venv-cluster/.made ## --cluster on worker processes of Dask on this machine
	.venv-cluster/bin/python -m pytest -m providers tests/providers/test_cluster.py tests/providers/test_cluster_partition.py

test-cuda: .venv-cuda/.made ## CUDA on this machine's own GPU (downloads 2 GB)
	.venv-cuda/bin/python -m pytest -m providers tests/providers/test_cuda.py

# Tiny stub libraries stand in for the GPU's driver and TensorRT, so that the real option parsers run; no kernel does.
test-cuda-options: .venv-cuda/.made ## option names against CUDA's and TensorRT's own parsers (downloads 2 GB; not for CI)
	.venv-cuda/bin/python -m pytest -m providers tests/providers/test_cuda_options.py

LOCK_PROVIDER = $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
    --extra zoo pyproject.toml -
# What makes an environment install this package, beside the extra.
LOCK_TOOLS = hatchling>=1.27

lock-tensorrt: ## resolve TensorRT's lock file (needs uv, and an index that has NVIDIA's own wheels)
	echo '$(LOCK_TOOLS)' | $(LOCK_PROVIDER) --extra tensorrt -o requirements-tensorrt.lock

lock-providers: ## resolve the providers' lock files anew (needs uv)
	echo '$(LOCK_TOOLS)' | $(LOCK_PROVIDER) --extra openvino -o requirements-openvino.lock
	echo '$(LOCK_TOOLS)' | $(LOCK_PROVIDER) --extra webgpu -o requirements-webgpu.lock
	echo '$(LOCK_TOOLS)' | $(LOCK_PROVIDER) --extra cuda -o requirements-cuda.lock
	echo '$(LOCK_TOOLS)' | $(LOCK_PROVIDER) --extra cpu --extra cluster -o requirements-cluster.lock
	printf '%s\n' '$(LOCK_TOOLS)' 'onnxruntime-gpu>=1.24' | $(LOCK_PROVIDER) -o requirements-gpu.lock
