#include "launch.cuh"
#include "nms.h"

// Boxes by falling score are cut into blocks of 64. A bit mask tells for each box which later ones it would suppress;
// one block of threads then walks through the boxes and keeps or drops them, all on the device. Masks of a stage of
// boxes only are held at once, so that memory grows linearly.
namespace equilidar {
namespace {

using Word = unsigned long long;
constexpr int kBits = 64;
constexpr int64_t kStage = 4096;  // boxes whose masks are held at once
constexpr size_t kBoxBytes = sizeof(OverlapBox);
static_assert(sizeof(AxisAlignedRule::Box) <= kBoxBytes && sizeof(CircleRule::Box) <= kBoxBytes);

int64_t words_for(int64_t num) { return (num + kBits - 1) / kBits; }

template <typename Rule, typename T>
__global__ void prepare_kernel(Rule rule, const T* boxes, const int64_t* order, const int64_t* groups, int64_t num,
                               typename Rule::Box* prepared, int64_t* sorted_groups) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  prepared[i] = rule.prepare(boxes + Rule::kColumns * order[i]);
  sorted_groups[i] = groups[order[i]];
}

// mask is (boxes of the stage, num_words); bit k of word w of row i: box first + i suppresses box 64 w + k. Words before
// the row's own block are neither written nor read.
template <typename Rule>
__global__ void mask_kernel(Rule rule, const typename Rule::Box* boxes, const int64_t* groups, int64_t num, int64_t first,
                            int64_t num_words, Word* mask) {
  __shared__ typename Rule::Box columns[kBits];
  __shared__ int64_t column_groups[kBits];
  const int64_t word = blockIdx.x, row = first + blockIdx.y * static_cast<int64_t>(kBits) + threadIdx.x;
  if (word < (first + blockIdx.y * static_cast<int64_t>(kBits)) / kBits) return;  // the whole block of threads
  const int size = static_cast<int>(min_of<int64_t>(kBits, num - word * kBits));
  if (static_cast<int>(threadIdx.x) < size) {
    columns[threadIdx.x] = boxes[word * kBits + threadIdx.x];
    column_groups[threadIdx.x] = groups[word * kBits + threadIdx.x];
  }
  __syncthreads();
  if (row >= num) return;
  const typename Rule::Box box = boxes[row];
  const int64_t group = groups[row];
  Word bits = 0;
  for (int k = 0; k < size; ++k) {
    const typename Rule::Box& other = columns[k];
    if (word * kBits + k <= row || column_groups[k] != group) continue;
    if (!circles_meet(other.x - box.x, other.y - box.y, box.radius + other.radius)) continue;
    if (rule.suppresses(box, other)) bits |= Word{1} << k;
  }
  mask[(row - first) * num_words + word] = bits;
}

// One block of threads. removed is (num_words) and zero before the first stage, as is count.
__global__ void reduce_kernel(const Word* mask, const int64_t* order, int64_t num, int64_t first, int64_t num_words,
                              Word* removed, int64_t* kept, int64_t* count) {
  __shared__ Word diagonal[kBits];
  __shared__ Word keep;
  int64_t total = *count;
  const int64_t end = min_of<int64_t>(first + kStage, num);
  for (int64_t begin = first; begin < end; begin += kBits) {
    const int64_t word = begin / kBits;
    const int size = static_cast<int>(min_of<int64_t>(kBits, end - begin));
    const Word* const rows = mask + (begin - first) * num_words;
    if (static_cast<int>(threadIdx.x) < size) diagonal[threadIdx.x] = rows[threadIdx.x * num_words + word];
    __syncthreads();
    if (threadIdx.x == 0) {
      Word gone = removed[word];
      keep = 0;
      for (int k = 0; k < size; ++k) {
        if (gone >> k & 1) continue;
        keep |= Word{1} << k;
        gone |= diagonal[k];
      }
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < size && (keep >> threadIdx.x & 1)) {
      const Word earlier = keep & ((Word{1} << threadIdx.x) - 1);
      kept[total + __popcll(earlier)] = order[begin + threadIdx.x];
    }
    for (int64_t later = word + 1 + threadIdx.x; later < num_words; later += blockDim.x) {
      Word gone = removed[later];
      for (int k = 0; k < size; ++k) {
        if (keep >> k & 1) gone |= rows[k * num_words + later];
      }
      removed[later] = gone;
    }
    total += __popcll(keep);
    __syncthreads();
  }
  if (threadIdx.x == 0) *count = total;
}

}  // namespace

int64_t nms_workspace_cuda(int64_t num) {
  const int64_t words = words_for(num);
  return num * (kBoxBytes + sizeof(int64_t)) + words * sizeof(Word) + min_of(num, kStage) * words * sizeof(Word);
}

template <typename Rule, typename T>
void nms_cuda(const Rule& rule, const T* boxes, const int64_t* order, const int64_t* groups, int64_t num, void* workspace,
              int64_t* kept, int64_t* count, Stream stream) {
  const cudaStream_t on = stream_of(stream);
  cudaMemsetAsync(count, 0, sizeof(int64_t), on);
  if (num == 0) return;
  const int64_t num_words = words_for(num);
  char* const bytes = static_cast<char*>(workspace);
  auto* const prepared = reinterpret_cast<typename Rule::Box*>(bytes);
  auto* const sorted_groups = reinterpret_cast<int64_t*>(bytes + num * kBoxBytes);
  Word* const removed = reinterpret_cast<Word*>(sorted_groups + num);
  Word* const mask = removed + num_words;
  cudaMemsetAsync(removed, 0, num_words * sizeof(Word), on);
  prepare_kernel<<<blocks_for(num), kThreads, 0, on>>>(rule, boxes, order, groups, num, prepared, sorted_groups);
  check_launch("nms: prepare");
  for (int64_t first = 0; first < num; first += kStage) {
    const dim3 grid(static_cast<unsigned>(num_words), blocks_for(min_of(kStage, num - first), kBits));
    mask_kernel<<<grid, kBits, 0, on>>>(rule, prepared, sorted_groups, num, first, num_words, mask);
    check_launch("nms: mask");
    reduce_kernel<<<1, 1024, 0, on>>>(mask, order, num, first, num_words, removed, kept, count);
    check_launch("nms: reduce");
  }
}

#define EQL_INSTANTIATE(Rule, T)                                                                                          \
  template void nms_cuda(const Rule&, const T*, const int64_t*, const int64_t*, int64_t, void*, int64_t*, int64_t*, Stream);
EQL_FOR_RULES(EQL_INSTANTIATE)
#undef EQL_INSTANTIATE

}  // namespace equilidar
