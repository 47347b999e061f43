// Pixels as the network was trained on: the arithmetic of Pillow, which jaxcnn resizes with, so the same numbers.

let canvas;
const BITS = 22; // of a weight, a whole number, as in Pillow's resampling of 8-bit images

/** The weights with which each of `out` pixels is a sum of those of a line of `size`, between two places of it. */
function weights(size, from, to, out) {
  const scale = (to - from) / out, reach = Math.max(scale, 1), most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(out), count = new Int32Array(out), values = new Int32Array(out * most);
  for (let i = 0; i < out; i++) {
    const centre = from + (i + 0.5) * scale;
    const begin = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), size);
    const row = [];
    let sum = 0;
    for (let j = begin; j < end; j++) {
      const weight = Math.max(1 - Math.abs((j - centre + 0.5) * (1 / reach)), 0);
      row.push(weight);
      sum += weight;
    }
    row.forEach((weight, j) => { values[i * most + j] = Math.trunc(0.5 + (weight / sum) * (1 << BITS)); });
    first[i] = begin;
    count[i] = row.length;
  }
  return { first, count, values, most };
}

/** Sums along one axis: of `lines` lines, whose pixels lie `step` apart and which themselves lie `next` apart. */
function along(pixels, table, out, lines, step, next, outStep, outNext, channels, result) {
  for (let i = 0; i < out; i++) {
    const begin = table.first[i], count = table.count[i], place = i * table.most;
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (BITS - 1), from = begin * step + line * next + c;
        for (let j = 0; j < count; j++, from += step) sum += pixels[from] * table.values[place + j];
        result[i * outStep + line * outNext + c] = sum >> BITS;
      }
    }
  }
  return result;
}

/** One axis of an image {pixels, width, height}, from the part between two places. */
function across(image, channels, out, from, to) {
  const { pixels, width, height } = image;
  if (width === out && from === 0 && to === out) return image;
  const table = weights(width, from, to, out), result = new Uint8Array(out * height * channels);
  along(pixels, table, out, height, channels, width * channels, channels, out * channels, channels, result);
  return { pixels: result, width: out, height };
}

function down(image, channels, out, from, to) {
  const { pixels, width, height } = image, row = width * channels;
  if (height === out && from === 0 && to === out) return image;
  const table = weights(height, from, to, out), result = new Uint8Array(out * row);
  along(pixels, table, out, width, row, channels, row, channels, channels, result);
  return { pixels: result, width, height: out };
}

/** Bilinear with antialiasing, from the box [left, top, right, bottom]; images are {pixels, width, height}.
 *
 * Each axis is rounded to 8 bits, so their order matters. Pillow 13 begins with the columns of an image that loses much
 * more height than width ("cheapest"); earlier ones begin with the rows of all but the narrowest ("rows").
 */
function resample(image, channels, width, height, [left, top, right, bottom], order) {
  const less = image.height - height;
  const columns = less > 0 && (order === "cheapest" ? less > 2 * (image.width - width) : image.height > 100 * image.width);
  if (columns) return across(down(image, channels, height, top, bottom), channels, width, left, right);
  return down(across(image, channels, width, left, right), channels, height, top, bottom);
}

/** Width or height of a resized image within its square. */
function length(side, size, sides, fit) {
  const longest = Math.max(...sides);
  return fit === "pad" ? Math.max(1, Math.floor((2 * size * side + longest) / (2 * longest))) : size;
}

/** An image as a square: "crop" keeps the centre, "pad" all between black bars, "stretch" all without proportions. */
function square(image, channels, size, { resize: fit, order }) {
  const { width, height } = image, side = Math.min(width, height), sides = [width, height];
  const [left, top] = fit === "crop" ? [(width - side) / 2, (height - side) / 2] : [0, 0];
  const box = [left, top, width - left, height - top];
  const small = resample(image, channels, length(width, size, sides, fit), length(height, size, sides, fit), box, order);
  if (small.width === size && small.height === size) return small;
  const pixels = new Uint8Array(size * size * channels);
  const x = Math.floor((size - small.width) / 2), y = Math.floor((size - small.height) / 2), row = small.width * channels;
  for (let i = 0; i < small.height; i++) {
    pixels.set(small.pixels.subarray(i * row, (i + 1) * row), ((y + i) * size + x) * channels);
  }
  return { pixels, width: size, height: size };
}

/** Red, green and blue, or grey, from a canvas's red, green, blue and alpha. */
function coloured(rgba, channels) {
  const count = rgba.length / 4, pixels = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    const r = rgba[4 * i], g = rgba[4 * i + 1], b = rgba[4 * i + 2];
    if (channels === 1) pixels[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; // as Pillow's "L"
    else pixels.set([r, g, b], 3 * i);
  }
  return pixels;
}

/** How places in an image move when it is made to fit, as jaxcnn knows it: scale of x and y, left, top. */
function frame(width, height, { image_shape: [size, other], resize: fit }) {
  if (size !== other) return [1, 1, 0, 0];
  if (fit === "crop") {
    const scale = size / Math.min(width, height);
    return [scale, scale, (size - scale * width) / 2, (size - scale * height) / 2].map(Math.fround);
  }
  const [wide, high] = [width, height].map((side, k, sides) => length(side, size, sides, fit));
  return [wide / width, high / height, Math.floor((size - wide) / 2), Math.floor((size - high) / 2)].map(Math.fround);
}

/** The image that the network takes, from one of any size. Throws where it cannot be made. */
function fitting(image, facts) {
  const [height, width, channels] = facts.image_shape;
  if (height === width) return square(image, channels, height, facts);
  if (image.width === width && image.height === height) return image;
  throw new Error(`it is ${image.width}x${image.height}, but the network accepts only ${width}x${height}`);
}

/** The scale at which jaxcnn decodes a JPEG: 1/2, 1/4 or 1/8 of it where that is still twice as large as the result. */
function reduction({ width, height }, facts) {
  const [size, other] = facts.image_shape;
  if (size !== other) return 1;
  const times = Math.min(...[width, height].map((side, k, sides) => Math.floor(side / (2 * length(side, size, sides, facts.resize)))));
  return [8, 4, 2].find((scale) => times >= scale) ?? 1;
}

/** The means of squares of `times` pixels, which libjpeg's reduced scales are, up to rounding and the blur of colours. */
function reduced({ pixels, width, height }, times) {
  const columns = Math.ceil(width / times), rows = Math.ceil(height / times), result = new Uint8Array(columns * rows * 4);
  const half = (times * times) / 2;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let c = 0; c < 4; c++) {
        let sum = half;
        for (let y = i * times; y < (i + 1) * times; y++) {
          const line = Math.min(y, height - 1) * width; // the last row and column are repeated to whole squares
          for (let x = j * times; x < (j + 1) * times; x++) sum += pixels[4 * (line + Math.min(x, width - 1)) + c];
        }
        result[4 * (i * columns + j) + c] = sum / (times * times);
      }
    }
  }
  return { pixels: result, width: columns, height: rows };
}

/** What kind of image begins with these bytes, where that matters. */
function kind(head) {
  if (head[0] === 0xff && head[1] === 0xd8) return "JPEG";
  const grey16 = String.fromCharCode(...head.subarray(1, 4)) === "PNG" && head[24] === 16 && head[25] % 4 === 0;
  return grey16 ? "16-bit grey" : "another";
}

/** The pixels of a file, or of a frame of the camera, as the network with these facts takes them. Throws if it cannot. */
export async function read(given, facts) {
  return (await placed(given, facts)).pixels;
}

/** The same as `pixels`, with the `sides` of the image, width and height, and its `frame` in what the network sees. */
export async function placed(given, facts) {
  const isFile = given instanceof Blob;
  const known = isFile ? kind(new Uint8Array(await given.slice(0, 26).arrayBuffer())) : "a frame";
  if (known === "16-bit grey") throw new Error("browsers cut 16-bit grey in ways of their own; save it with 8 bits");
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" }; // as jaxcnn: EXIF yes, profiles no
  const bitmap = isFile ? await createImageBitmap(given, options).catch(() => null) : given;
  if (!bitmap) throw new Error("this is no image that the browser can read");
  const { width, height } = bitmap, times = known === "JPEG" ? reduction(bitmap, facts) : 1;
  if (Math.ceil(width / times) * Math.ceil(height / times) > facts.max_megapixels * 1e6) {
    throw new Error(`it has ${width} x ${height} pixels, more than the ${facts.max_megapixels} million that are allowed`);
  }
  canvas ??= new OffscreenCanvas(1, 1);
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  let image = { pixels: context.getImageData(0, 0, width, height).data, width, height };
  if (times > 1) image = reduced(image, times);
  const { pixels } = fitting({ ...image, pixels: coloured(image.pixels, facts.image_shape[2]) }, facts);
  return { pixels, sides: [width, height], frame: frame(width, height, facts) };
}
