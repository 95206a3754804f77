# Every target sets up what it needs: a virtual environment in .venv with the pinned packages of constraints.txt, ROS 2
# from wheels among them, and the messages built into it. See docs/development.md.
#
#   make demo [SOURCE=<images, video or bag>]   play a scene, or your own input, through the node; writes out/demo
#   make test [TESTS=<path>]                    the tests
#   make lint                                   ruff and mypy
#   make bench [DATA=<folder>]                  the tables of the README
#   make colcon                                 colcon build and colcon test, in out/colcon
#   make build | make clean                     the set-up alone | away with everything that make created

PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
MESSAGES := build/messages
COLCON_DIR := out/colcon

# The environment is an ament prefix of its own: a sourced ROS distribution must not shine through.
export AMENT_PREFIX_PATH := $(VENV)
export CMAKE_PREFIX_PATH := $(VENV)
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport COLCON_PREFIX_PATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION

.PHONY: build demo test lint bench colcon clean
.DELETE_ON_ERROR:

build: $(STAMPS)/messages $(STAMPS)/tf2_msgs

demo: build
	mastsam demo $(if $(SOURCE),"$(SOURCE)")

test: build
	python -m pytest $(TESTS)

lint: build
	ruff check .
	ruff format --check .
	mypy

bench: build
	mastsam bench $(if $(DATA),"$(DATA)")

colcon: build
	colcon --log-base $(COLCON_DIR)/log build --base-paths . --packages-select mastsam_ros \
	  --build-base $(COLCON_DIR)/build --install-base $(COLCON_DIR)/install \
	  --cmake-args -DPython3_EXECUTABLE=$(BIN)/python
	colcon --log-base $(COLCON_DIR)/log test --base-paths . --packages-select mastsam_ros \
	  --build-base $(COLCON_DIR)/build --install-base $(COLCON_DIR)/install \
	  --event-handlers console_direct+ --return-code-on-test-failure
	colcon --log-base $(COLCON_DIR)/log test-result --test-result-base $(COLCON_DIR)/build --verbose

clean:
	rm -rf .venv build out mastsam_ros.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is not: make PYTHON=python3.12 build"; exit 1; }
	@$(PYTHON) -c 'import platform; exit((platform.system(), platform.machine()) != ("Linux", "x86_64"))' || \
	  { echo "the wheels of ROS 2 are for Linux on x86-64; elsewhere 'pip install .' gives the library and mastsam without the node"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "Python's headers are missing; on Debian and Ubuntu: apt install python3-dev python3-venv"; exit 1; }
	@c++ --version > /dev/null 2>&1 || \
	  { echo "a C and C++ compiler is missing; on Debian and Ubuntu: apt install build-essential"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS) && touch $@

# One command for all packages: pip then sees all the constraints at once. The build tools are the pinned ones too.
$(STAMPS)/packages: constraints.txt setup.py pyproject.toml | $(STAMPS)/venv
	python -m pip install --quiet --constraint constraints.txt pip setuptools
	python -m pip install --progress-bar off --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $@

$(STAMPS)/messages: $(STAMPS)/packages CMakeLists.txt package.xml $(wildcard cmake/* msg/* srv/* config/* foxglove/* launch/* rviz/*)
	cmake -S . -B $(MESSAGES) -DCMAKE_INSTALL_PREFIX=$(VENV) -DPython3_EXECUTABLE=$(BIN)/python \
	  -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DINSTALL_PYTHON_MODULE=OFF -DCMAKE_RULE_MESSAGES=OFF -DCMAKE_TARGET_MESSAGES=OFF --log-level=WARNING
	cmake --build $(MESSAGES) --parallel 2 -- --no-print-directory -s
	cmake --install $(MESSAGES) > $(MESSAGES)/install.log
	touch $@

# What the ROS wheels lack, and every installed distribution has.
$(STAMPS)/tf2_msgs: $(STAMPS)/packages $(wildcard cmake/* wheels/tf2_msgs/* wheels/tf2_msgs/msg/*)
	cmake -S wheels/tf2_msgs -B build/tf2_msgs -DCMAKE_INSTALL_PREFIX=$(VENV) -DPython3_EXECUTABLE=$(BIN)/python \
	  -DCMAKE_BUILD_TYPE=Release -DCMAKE_RULE_MESSAGES=OFF -DCMAKE_TARGET_MESSAGES=OFF --log-level=WARNING
	cmake --build build/tf2_msgs --parallel 2 -- --no-print-directory -s
	cmake --install build/tf2_msgs > build/tf2_msgs/install.log
	touch $@
