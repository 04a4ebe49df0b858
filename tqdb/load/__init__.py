"""Load: throwaway servers, the compiled load generator, the demo and the benchmark runner."""
