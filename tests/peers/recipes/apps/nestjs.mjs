import "reflect-metadata";
import helmet from "helmet";
import { Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { nangoCallback } from "./nango-callback.js";

class AppModule {}
Module({})(AppModule);
const app = await NestFactory.create(AppModule, { logger: false });
app.use(nangoCallback);
app.setGlobalPrefix("api");
app.use(helmet());
await app.listen(process.env.PORT, "127.0.0.1");
