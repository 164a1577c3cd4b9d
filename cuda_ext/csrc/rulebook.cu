#include <vector>

#include "rulebook.h"
#include "sort.cuh"

namespace equilidar {
namespace {

__global__ void keys_kernel(const int32_t* coords, int64_t num, Cells shape, int64_t* keys, int32_t* rows) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  keys[i] = cell_key(coords + 4 * i, shape);
  rows[i] = static_cast<int32_t>(i);
}

// One thread per cell and line of neighbours along x: one search, then a walk. flags: 1 where a pair is to be listed.
__global__ void table_kernel(const int64_t* keys, const int32_t* order, int64_t num, Cells wide, Cells kernel,
                             int32_t* table, int32_t* flags) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  const int64_t line = blockIdx.y;
  const int64_t dz = line / kernel.y - kernel.z / 2, dy = line % kernel.y - kernel.y / 2;
  const int64_t base = keys[i] + (dz * wide.y + dy) * wide.x - kernel.x / 2;
  int64_t position = first_at_least(keys, 0, num, base);
  for (int64_t tap = 0; tap < kernel.x; ++tap) {
    const bool found = position < num && keys[position] == base + tap;
    const int64_t offset = line * kernel.x + tap, entry = offset * num + order[i];
    table[entry] = found ? order[position] : -1;
    flags[entry] = found && offset != kernel.volume() / 2;
    position += found;
  }
}

__global__ void list_kernel(const int32_t* table, const int32_t* positions, int64_t num_offsets, int64_t num,
                            int64_t num_pairs, int32_t* in_rows, int32_t* out_rows) {
  const int64_t entry = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (entry >= num_offsets * num) return;
  const int32_t position = positions[entry];
  const int64_t next = entry + 1 < num_offsets * num ? positions[entry + 1] : num_pairs;
  if (next == position) return;
  in_rows[position] = table[entry];
  out_rows[position] = static_cast<int32_t>(entry % num);
}

// The pairs before each offset, and before the end, next to one another, so that one copy brings them to the host.
__global__ void starts_kernel(const int32_t* positions, const int32_t* last_flag, int64_t num_offsets, int64_t num,
                              int32_t* starts) {
  const int64_t k = threadIdx.x + blockIdx.x * static_cast<int64_t>(blockDim.x);
  if (k < num_offsets) starts[k] = positions[k * num];
  if (k == num_offsets) starts[k] = positions[num_offsets * num - 1] + *last_flag;
}

// Candidates: every tap of every cell; those that no output cell reads sort last.
__global__ void readers_kernel(const int32_t* coords, int64_t num, Geometry g, int64_t absent, int64_t* keys, int32_t* ids) {
  const int64_t id = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  const Cells taps = g.taps();
  if (id >= num * taps.volume()) return;
  const int32_t* const row = coords + 4 * (id / taps.volume());
  const int64_t tap = id % taps.volume();
  int64_t z, y, x, dz, dy, dx;
  const bool exists = read_along(row[1], tap / (taps.y * taps.x), g.kernel.z, g.stride.z, g.padding.z, g.out_shape.z, z, dz) &&
                      read_along(row[2], tap / taps.x % taps.y, g.kernel.y, g.stride.y, g.padding.y, g.out_shape.y, y, dy) &&
                      read_along(row[3], tap % taps.x, g.kernel.x, g.stride.x, g.padding.x, g.out_shape.x, x, dx);
  keys[id] = exists ? cell_key(row[0], z, y, x, g.out_shape) : absent;
  ids[id] = static_cast<int32_t>(id);
}

__global__ void starts_of_cells_kernel(const int64_t* keys, int64_t num, int64_t absent, int32_t* flags) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) flags[i] = keys[i] != absent && (i == 0 || keys[i] != keys[i - 1]);
}

// The kernel offset of a candidate, from its cell and tap alone.
__device__ int64_t offset_of(const int32_t* row, int64_t tap, const Geometry& g) {
  const Cells taps = g.taps();
  int64_t out, dz, dy, dx;
  read_along(row[1], tap / (taps.y * taps.x), g.kernel.z, g.stride.z, g.padding.z, g.out_shape.z, out, dz);
  read_along(row[2], tap / taps.x % taps.y, g.kernel.y, g.stride.y, g.padding.y, g.out_shape.y, out, dy);
  read_along(row[3], tap % taps.x, g.kernel.x, g.stride.x, g.padding.x, g.out_shape.x, out, dx);
  return (dz * g.kernel.y + dy) * g.kernel.x + dx;
}

// Keys that sort pairs by offset and then output row; counts (num_offsets + 1): pairs per offset, then output rows.
__global__ void pair_keys_kernel(const int32_t* coords, const int64_t* cell_keys, const int32_t* ids, const int32_t* ranks,
                                 int64_t num, Geometry g, int64_t absent, int64_t* pair_keys, int64_t* out_keys,
                                 unsigned long long* counts) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  const int64_t num_offsets = g.kernel.volume(), taps = g.taps().volume();
  if (i == num - 1) counts[num_offsets] = static_cast<unsigned long long>(ranks[i]);
  if (cell_keys[i] == absent) {
    pair_keys[i] = num_offsets * num;
    return;
  }
  const int64_t row = ranks[i] - 1, offset = offset_of(coords + 4 * (ids[i] / taps), ids[i] % taps, g);
  pair_keys[i] = offset * num + row;
  out_keys[row] = cell_keys[i];
  atomicAdd(counts + offset, 1ull);
}

__global__ void list_strided_kernel(const int64_t* pair_keys, const int32_t* taps_of_pairs, int64_t num_pairs,
                                    int64_t capacity, int64_t taps, int32_t* in_rows, int32_t* out_rows) {
  const int64_t p = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (p >= num_pairs) return;
  in_rows[p] = static_cast<int32_t>(taps_of_pairs[p] / taps);
  out_rows[p] = static_cast<int32_t>(pair_keys[p] % capacity);
}

__global__ void coords_kernel(const int64_t* keys, int64_t num, Cells shape, int32_t* coords) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) cell_of_key(keys[i], shape, coords + 4 * i);
}

}  // namespace

PairsOnDevice submanifold_pairs_cuda(const int32_t* coords, int64_t num, const Cells& shape, const Cells& kernel,
                                     int64_t* counts, Workspace& workspace, Stream given) {
  const cudaStream_t stream = stream_of(given);
  const int64_t num_offsets = kernel.volume(), entries = num_offsets * num;
  PairsOnDevice pairs{};
  pairs.num_out = num;
  for (int64_t k = 0; k < num_offsets; ++k) counts[k] = 0;
  if (num == 0) return pairs;
  if (entries > INT32_MAX) throw std::runtime_error("submanifold_pairs: more than 2^31 - 1 cells times offsets");
  const Cells wide = with_margin(shape, kernel);
  int64_t* const unsorted = workspace.get<int64_t>(num);
  int32_t* const rows = workspace.get<int32_t>(num);
  keys_kernel<<<blocks_for(num), kThreads, 0, stream>>>(coords, num, wide, unsorted, rows);
  check_launch("submanifold_pairs");
  const int64_t* keys = unsorted;
  const int32_t* order = rows;
  sort_by_key(keys, order, num, 63, workspace, stream);
  int32_t* const table = workspace.get<int32_t>(entries);
  int32_t* const positions = workspace.get<int32_t>(entries);
  int32_t* const starts = workspace.get<int32_t>(num_offsets + 1);
  int32_t* const last_flag = workspace.get<int32_t>(1);
  const dim3 grid(blocks_for(num), static_cast<unsigned>(kernel.z * kernel.y));
  table_kernel<<<grid, kThreads, 0, stream>>>(keys, order, num, wide, kernel, table, positions);
  check_launch("submanifold_pairs");
  check_cuda(cudaMemcpyAsync(last_flag, positions + entries - 1, sizeof(int32_t), cudaMemcpyDeviceToDevice, stream),
             "submanifold_pairs");
  running_sum(positions, entries, false, workspace, stream);
  starts_kernel<<<blocks_for(num_offsets + 1), kThreads, 0, stream>>>(positions, last_flag, num_offsets, num, starts);
  check_launch("submanifold_pairs");
  std::vector<int32_t> host(num_offsets + 1);
  read_back(host.data(), starts, num_offsets + 1, stream, "submanifold_pairs");
  for (int64_t k = 0; k < num_offsets; ++k) counts[k] = host[k + 1] - host[k];
  pairs.num_pairs = host[num_offsets];
  pairs.table = table;
  pairs.positions = positions;
  return pairs;
}

void list_submanifold_pairs_cuda(const PairsOnDevice& pairs, int64_t num_offsets, int32_t* in_rows, int32_t* out_rows,
                                 Stream stream) {
  if (pairs.num_pairs == 0) return;
  list_kernel<<<blocks_for(num_offsets * pairs.num_out), kThreads, 0, stream_of(stream)>>>(
      pairs.table, pairs.positions, num_offsets, pairs.num_out, pairs.num_pairs, in_rows, out_rows);
  check_launch("submanifold_pairs");
}

PairsOnDevice strided_pairs_cuda(const int32_t* coords, int64_t num, const Geometry& geometry, int64_t* counts,
                                 Workspace& workspace, Stream given) {
  const cudaStream_t stream = stream_of(given);
  const int64_t num_offsets = geometry.kernel.volume(), capacity = num * geometry.taps().volume();
  PairsOnDevice pairs{};
  pairs.capacity = capacity;
  for (int64_t k = 0; k < num_offsets; ++k) counts[k] = 0;
  if (num == 0) return pairs;
  if (capacity > INT32_MAX) throw std::runtime_error("strided_pairs: more than 2^31 - 1 cells times taps");
  constexpr int64_t kAbsent = INT64_MAX;
  int64_t* const unsorted = workspace.get<int64_t>(capacity);
  int32_t* const unsorted_ids = workspace.get<int32_t>(capacity);
  readers_kernel<<<blocks_for(capacity), kThreads, 0, stream>>>(coords, num, geometry, kAbsent, unsorted, unsorted_ids);
  check_launch("strided_pairs");
  const int64_t* keys = unsorted;
  const int32_t* ids = unsorted_ids;
  sort_by_key(keys, ids, capacity, 63, workspace, stream);
  int32_t* const ranks = workspace.get<int32_t>(capacity);
  starts_of_cells_kernel<<<blocks_for(capacity), kThreads, 0, stream>>>(keys, capacity, kAbsent, ranks);
  check_launch("strided_pairs");
  running_sum(ranks, capacity, true, workspace, stream);
  int64_t* const pair_keys = workspace.get<int64_t>(capacity);
  int64_t* const out_keys = workspace.get<int64_t>(capacity);
  unsigned long long* const sums = workspace.get<unsigned long long>(num_offsets + 1);
  check_cuda(cudaMemsetAsync(sums, 0, (num_offsets + 1) * sizeof(*sums), stream), "strided_pairs");
  pair_keys_kernel<<<blocks_for(capacity), kThreads, 0, stream>>>(coords, keys, ids, ranks, capacity, geometry, kAbsent,
                                                                 pair_keys, out_keys, sums);
  check_launch("strided_pairs");
  pairs.pair_keys = pair_keys;
  pairs.pair_taps = ids;
  pairs.out_keys = out_keys;
  sort_by_key(pairs.pair_keys, pairs.pair_taps, capacity, bits_of(uint64_t(num_offsets) * capacity + 1), workspace, stream);
  std::vector<unsigned long long> host(num_offsets + 1);
  read_back(host.data(), sums, num_offsets + 1, stream, "strided_pairs");
  for (int64_t k = 0; k < num_offsets; ++k) {
    counts[k] = static_cast<int64_t>(host[k]);
    pairs.num_pairs += counts[k];
  }
  pairs.num_out = static_cast<int64_t>(host[num_offsets]);
  return pairs;
}

void list_strided_pairs_cuda(const PairsOnDevice& pairs, const Geometry& geometry, int32_t* in_rows, int32_t* out_rows,
                             int32_t* out_coords, Stream given) {
  const cudaStream_t stream = stream_of(given);
  if (pairs.num_pairs == 0) return;
  list_strided_kernel<<<blocks_for(pairs.num_pairs), kThreads, 0, stream>>>(
      pairs.pair_keys, pairs.pair_taps, pairs.num_pairs, pairs.capacity, geometry.taps().volume(), in_rows, out_rows);
  check_launch("strided_pairs");
  coords_kernel<<<blocks_for(pairs.num_out), kThreads, 0, stream>>>(pairs.out_keys, pairs.num_out, geometry.out_shape, out_coords);
  check_launch("strided_pairs");
}

}  // namespace equilidar
