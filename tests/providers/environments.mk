# Environments for the execution providers whose distributions exclude the ordinary one, and the tests that run in them.
# Meant to be included by the Makefile at the root; `make -f tests/providers/environments.mk TARGET` works by itself.
#
#   make .venv-openvino/.ready      one environment (also .venv-webgpu, .venv-gpu)
#   make provider-environments      all three
#   make provider-tests             the tests marked `providers`, each in its environment
#   make provider-locks             resolve the lock files anew (needs uv)
#   make test-cuda-options          option names against the real CUDA and TensorRT parsers (downloads 2 GB; not for CI)

PYTHON ?= python3
APT_GET ?= apt-get
UV ?= uv
SWIFTSHADER = .venv-webgpu/swiftshader
PROVIDER_ENVIRONMENTS = .venv-openvino .venv-webgpu .venv-gpu

.PHONY: provider-environments provider-tests provider-locks test-cuda-options

provider-environments: $(PROVIDER_ENVIRONMENTS:%=%/.ready) $(SWIFTSHADER)/.ready

.venv-openvino/.ready: requirements-openvino.lock
.venv-webgpu/.ready: requirements-webgpu.lock
.venv-gpu/.ready: requirements-cuda.lock

$(PROVIDER_ENVIRONMENTS:%=%/.ready): pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --require-hashes -r $(filter %.lock,$^)
	$(@D)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# WebGPU needs a Vulkan device. SwiftShader is one in software; Debian ships it inside Chromium's package, which is
# unpacked here and not installed: it would bring a browser.
$(SWIFTSHADER)/.ready: | .venv-webgpu/.ready
	ldconfig -p | grep -q libvulkan.so.1 || { $(APT_GET) update -qq && $(APT_GET) install -y -qq --no-install-recommends libvulkan1; }
	rm -rf $(SWIFTSHADER) && mkdir -p $(SWIFTSHADER)
	cd $(SWIFTSHADER) && { $(APT_GET) download -qq chromium-common || { $(APT_GET) update -qq && $(APT_GET) download -qq chromium-common; }; }
	cd $(SWIFTSHADER) && dpkg-deb --fsys-tarfile chromium-common_*.deb \
	    | tar -x --strip-components=4 --wildcards './usr/lib/chromium/*vk_swiftshader*'
	rm $(SWIFTSHADER)/chromium-common_*.deb
	touch $@

# What a command needs in its environment to find that device.
WEBGPU_VARIABLES = VK_DRIVER_FILES=$(CURDIR)/$(SWIFTSHADER)/vk_swiftshader_icd.json \
    ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-$(CURDIR)/$(SWIFTSHADER)}

provider-tests: provider-environments
	.venv-openvino/bin/python -m pytest -m providers tests/providers/test_openvino.py
	$(WEBGPU_VARIABLES) .venv-webgpu/bin/python -m pytest -m providers tests/providers/test_webgpu.py
	.venv-gpu/bin/python -m pytest -m providers tests/providers/test_gpu_refused.py

PROVIDER_LOCK = $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -
PROVIDER_TOOLS = flit_core>=3.12,<4

provider-locks:
	printf '%s\n' '$(PROVIDER_TOOLS)' | $(PROVIDER_LOCK) --extra openvino --extra zoo -o requirements-openvino.lock
	printf '%s\n' '$(PROVIDER_TOOLS)' | $(PROVIDER_LOCK) --extra webgpu --extra zoo -o requirements-webgpu.lock
	# Without the CUDA libraries (2 GB): enough to see the provider refuse on a machine without a GPU.
	printf '%s\n' '$(PROVIDER_TOOLS)' 'onnxruntime-gpu>=1.24' | $(PROVIDER_LOCK) -o requirements-cuda.lock

# Tiny stub libraries stand in for the GPU driver and TensorRT, so that the real option parsers run; no kernel does.
test-cuda-options: .venv-gpu/.ready
	$(PYTHON) -m venv .venv-cuda-options
	.venv-cuda-options/bin/python -m pip install --quiet --no-cache-dir --editable '.[cuda]'
	.venv-cuda-options/bin/python -m pytest -m providers tests/providers/test_cuda_options.py
	rm -rf .venv-cuda-options
